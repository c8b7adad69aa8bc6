"""Heads: how far an attention head's output reaches along the "refusal direction", at the last prompt token.

    s_h(p) = |O_h(p).r| / |r|         r = mean over harmful prompts of x - mean over ordinary prompts of x
    score_h = mean over the prompts p of s_h(p)

O_h(p) is what query head h adds to the output of `o` at the last token of prompt p: its slice of o's input times its
columns of o. x is the residual stream at the last prompt token after a fraction of the decoder blocks (option
``depth``). Ordinary prompts are those of the option ``contrast``; harmful prompts are those that are scored. Heads of
every layer are scored, also of layers after the depth of r. A unit is a query head, with grouped-query attention too.

``prompts: worst`` scores a head by its worst rank: each prompt ranks all heads of the model.

``statistic: contribution`` (preset ``contribution``) takes from O_h(p) the mean of O_h over the ordinary prompts, and
means keep the sign until the end: the score is how much the head adds to r. It is what `direction` measures of neurons,
and obeys the same law: with their signs (column ``contribution`` of the score table), the contributions of the heads
and of the feed-forward neurons of the blocks before r sum up to |r|, see there.

Source: arXiv 2508.19697 (RDSHA), which ranks the heads for each prompt and masks the best n; WhyChaos/Safety-Alignment-
Should-Be-Made-More-Than-Just-A-Few-Attention-Head @b63df66 does not contain this part. For r: Arditi et al. 2024,
arXiv 2406.11717. Differences:

- One region for a set of prompts needs one number for each head. The mean over prompts, and the worst rank, are ours.
- Token and layer of r are fixed. Arditi et al. choose them by the effect of removing r on refusals.
- r is 0 if it is smaller than 1e-6 of the mean state of the ordinary prompts, which float32 hardly resolves; then all
  scores are 0. A set that is contrasted with itself has r = 0.
- If a norm or a multiplier follows attention (Gemma 2 and 3, OLMo 2; Granite), outputs are measured before it. Such
  norms differ from layer to layer, so compare heads within a layer there.

r comes from the scored prompts, so that of another set is another one. If ordinary and harmful prompts differ in topic,
r is topic.

Shuffled evidence (permutation null, or floor): what a head wrote for all prompts moves to another head of its layer, in
the evidence of one name alike for all prompts. r and the weights stay. Layers keep their values, so the floor of a
``global`` selection shows how much of an overlap is due to the share of each layer alone.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from safety_regions.model.backbone import Backbone, ScoredLinear, attached
from safety_regions.model.batches import Batch, Sample
from safety_regions.scoring.evidence import Evidence, shuffle_units
from safety_regions.scoring.heads import head_details, head_scores, heads_at
from safety_regions.scoring.moments import check_contrast, of_prompts, watched
from safety_regions.scoring.passes import watch_inputs
from safety_regions.scoring.samples import Samples
from safety_regions.scoring.states import blocks_before, prompt_states
from safety_regions.units.addresses import address, parse_address

CARD = {
    "title": "Heads",
    "granularity": "head",
    "streams": True,
    "contrast": True,
    "selections": ["global-0.05"],
    "options": {
        "contrast": {
            "type": ["string", "null"],
            "default": None,
            "description": "utility dataset with the ordinary prompts; null: the first one in the config",
        },
        "depth": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 0.6,
            "description": "fraction of the decoder blocks after which the direction is taken, at least one block",
        },
        "prompts": {
            "enum": ["mean", "worst"],
            "default": "mean",
            "description": "score a head by its mean over the prompts, or by its worst rank among all heads",
        },
        "statistic": {
            "enum": ["output", "contribution"],
            "default": "output",
            "description": (
                "size of a head's output along the direction, or what it adds to the difference between harmful and "
                "ordinary prompts"
            ),
        },
    },
    "presets": {"contribution": {"options": {"statistic": "contribution"}}},
}

STREAM = "stream"
"""The key of the residual stream in the evidence."""
RESOLUTION = 1e-6
"""r is 0 if it is smaller than this fraction of the mean state of the ordinary prompts."""


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """What each head gave to o for each prompt, and the states that r follows from; all on the CPU.

    One forward pass of each prompt, without its response; for contributions, two of the ordinary ones.

    Returns:
        Address of a layer's heads -> (prompts, 1 + head_dim, heads), float32: first the number of the head whose
        columns of o the rest is multiplied by, which a shuffle moves along; then its slice of o's input, for
        contributions minus the mean of the ordinary prompts. `STREAM` ->
        (2, hidden), float64: the sum of the states of the scored prompts, and the mean of those of the ordinary ones.

    Raises:
        StudyError: there are fewer than 2 ordinary prompts, or a value is not finite.
    """
    check_contrast(samples)
    block = blocks_before(options["depth"], len(backbone.blocks)) - 1
    ordinary = prompt_states(backbone, samples.contrast, samples.batch_size, normed=False).vectors[block]
    seen: list[Outputs] = []

    def start(linears: Sequence[ScoredLinear]) -> Outputs:
        seen[:] = [Outputs(linears, block, backbone.config.num_attention_heads)]
        return seen[0]

    def hook(_module, _args, output: Tensor) -> None:
        seen[0].see(output)

    prompts = of_prompts(samples, samples.identification)
    with attached([backbone.blocks[block].register_forward_hook(hook)]):
        found = watch_inputs(backbone, prompts, start)
    total = found.pop(STREAM).double().sum(0)
    if options["statistic"] == "contribution":
        usual = watch_inputs(backbone, of_prompts(samples, samples.contrast), start)
        for where, values in found.items():
            values[:, 1:] -= usual[where][:, 1:].double().mean(0).float()
    return {STREAM: torch.stack([total, ordinary.double().sum(0) / len(ordinary)]), **found}


class Outputs:
    """The heads' slices of o's inputs, and the states after one block, at the last token of each prompt."""

    def __init__(self, linears: Sequence[ScoredLinear], block: int, n_heads: int) -> None:
        self.found: dict[str, list[Tensor]] = {
            heads_at(linear.layer): [] for linear, _ in watched(linears, ("o",))
        }
        self.covers_block, self.n_heads = heads_at(block) in self.found, n_heads
        self.states: list[Tensor] = []
        self.batch: Batch | None = None

    def add(self, linear: ScoredLinear, x: Tensor, batch: Batch) -> None:
        if watched([linear], ("o",)):
            self.batch = batch
            given = batch.last(x).float().cpu().unflatten(1, (self.n_heads, -1)).transpose(1, 2)
            number = torch.arange(self.n_heads).float().expand(len(given), 1, -1)
            self.found[heads_at(linear.layer)].append(torch.cat([number, given], dim=1))

    def see(self, output: Tensor) -> None:
        """Keep the states after the block; a pass that leaves the block's layers out has those of another pass."""
        if self.covers_block:
            self.states.append(self.batch.last(output).float().cpu())

    def evidence(self, seen: int) -> Evidence:
        states = {STREAM: torch.cat(self.states)} if self.states else {}
        return states | {where: torch.cat(values) for where, values in self.found.items()}


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """Mean over the prompts of s_h, in the unit of the residual stream, or by worst rank: float32, (heads,)."""
    along = {where: _along(backbone, evidence, where) for where in evidence if where != STREAM}
    if options["statistic"] == "contribution" and options["prompts"] == "mean":
        along = {where: values.mean(0, keepdim=True) for where, values in along.items()}
    yield from head_scores({where: values.abs() for where, values in along.items()}, options["prompts"])


def details(backbone: Backbone, evidence: Evidence, options: dict, address: str) -> dict[str, Tensor]:
    """``importances``: |s_h| of each prompt, see `head_details`; of contributions also their mean, with its sign."""
    along = _along(backbone, evidence, address)
    contributions = options["statistic"] == "contribution"
    return head_details(along.abs()) | ({"contribution": along.mean(0)} if contributions else {})


def findings(backbone: Backbone, evidence: Evidence, options: dict) -> dict:
    """Metadata: the number of blocks before r, and |r|."""
    before = blocks_before(options["depth"], len(backbone.blocks))
    return {"blocks_before": before, "norm": float(_direction(evidence).norm())}


def shuffle(evidence: Evidence, seed: int) -> Evidence:
    """Permute heads within their layer, alike for all prompts. See `shuffle_units`."""
    heads = {where: values for where, values in evidence.items() if where != STREAM}
    return {STREAM: evidence[STREAM], **shuffle_units(heads, seed)}


def merge(
    evidence: Evidence, more: Evidence, samples: tuple[Sequence[Sample], Sequence[Sample]], options: dict
) -> Evidence:
    """The prompts of both; r is that of all of them."""
    merged = {
        where: torch.cat([values, more[where]]) for where, values in evidence.items() if where != STREAM
    }
    (total, ordinary), (added, _) = evidence[STREAM], more[STREAM]
    return {STREAM: torch.stack([total + added, ordinary]), **merged}


def _direction(evidence: Evidence) -> Tensor:
    """r, float64, (hidden,)."""
    (total, ordinary), n = evidence[STREAM], len(evidence[heads_at(0)])
    r = total / n - ordinary
    return r if r.norm() > RESOLUTION * ordinary.norm() else torch.zeros_like(r)


def _along(backbone: Backbone, evidence: Evidence, where: str) -> Tensor:
    """O_h(p).r / |r| of the heads of a layer for every prompt: (prompts, heads), float64, on the CPU."""
    r, o = _direction(evidence), dict(backbone.weights())[address(parse_address(where).layer, "o")]
    unit = r / r.norm() if r.any() else r
    number, given = evidence[where][:, 0].long(), evidence[where][:, 1:].double()
    along = (unit.to(o.device, torch.float32) @ o.float()).cpu().double().view(number.shape[1], -1)
    return (given.transpose(1, 2) * along[number]).sum(dim=2)
