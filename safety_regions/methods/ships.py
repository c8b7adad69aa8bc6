"""SHIPS: how much the next token after a prompt changes when one attention head is neutralised.

    s_h(p) = KL( P(next token | p; model) || P(next token | p; model without head h) )      nats, full vocabulary
    score_h = mean over the prompts p of s_h(p)

"Without" means one of (option ``kind``):

    uniform   undifferentiated attention: the head's logits are 0 at every position, before mask and softmax, so the
              head takes the plain mean of the values that mask and window allow; the values stay
    output    the head's slice of o's input is 0: nothing of the head is left

A unit is a query head. With grouped-query attention, the other heads of its group stay as they are. Only the prompts
are read, without responses.

The score does not know what harm is: heads without which the model breaks have the largest scores. Read the regions
that are refined by a utility set. The first token says only what it decides: with a template after which every answer
begins with the same token, scores are noise. Heads of the first layers can have large scores whatever the prompt.

Source: Zhou et al. 2024, arXiv 2410.13708, equations 7 to 9 (code: ydyjya/SafetyHeadAttribution
@6203a04). Differences:

- The paper takes the heads with the largest s_h(p) of each query. One region for a set of prompts needs one number for
  each head; the mean, and the worst rank (``prompts: worst``), are ours.
- The paper scales W_q (uniform) or W_v (output) by a small number. Here the queries are 0 inside the attention
  function, after norm, bias and rotation. Scaling rows of W_q would leave a bias of q, and a norm of q undoes it.
  Scaling W_v would take all heads of a group away.
- The released code covers models in which each head has its own keys and values. Its index for k and v is wrong where
  heads share them.
- The generalised score over a whole set of queries, and the greedy search (Sahara), are left out.

Cost: layers below a head do not change, so they run once; the heads of layer l need the blocks from l on. That is half
of heads * layers forward passes of each prompt.

Shuffled evidence (permutation null, or floor): heads are permuted within their layer, alike for all prompts. Layers
keep their values, so the floor of a ``global`` selection shows how much of an overlap is due to the share of each layer
alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safety_regions.model.backbone import Backbone, attached, replaced_forwards
from safety_regions.model.batches import Batch, Sample, by_frequencies, padded
from safety_regions.model.finite import Finite
from safety_regions.model.halving import in_batches
from safety_regions.scoring.attention import changed_attention
from safety_regions.scoring.evidence import Evidence, shuffle_units
from safety_regions.scoring.heads import head_details, head_scores, heads_at
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "SHIPS",
    "granularity": "head",
    "streams": True,
    "selections": ["global-0.05"],
    "options": {
        "kind": {
            "enum": ["uniform", "output"],
            "default": "uniform",
            "description": "replace the head's attention by a uniform one, or its output by 0",
        },
        "prompts": {
            "enum": ["mean", "worst"],
            "default": "mean",
            "description": "score a head by its mean over the prompts, or by its worst rank among all heads",
        },
    },
}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """s_h of every prompt: address of a layer's heads -> (prompts, heads), nats, float64, on the CPU.

    Raises:
        StudyError: a logit is not finite.
    """
    without = Without(options["kind"])
    found: list[Tensor] = []
    prompts = [sample.prompt for sample in samples.identification]
    with torch.no_grad(), changed_attention(backbone, without.attend):
        for group in by_frequencies(prompts, backbone.rope_switch):
            for _, divergences in in_batches(
                group, samples.batch_size, lambda some: _divergences(backbone, some, without)
            ):
                found.append(divergences)
    return {heads_at(layer): values for layer, values in enumerate(torch.cat(found, dim=1))}


@dataclass
class Without:
    """The attention of a model without one head; ``head`` is (layer, number), None for the whole model."""

    kind: str
    head: tuple[int, int] | None = None

    def attend(self, layer, eager, query, key, value, mask, **settings):
        if self.head is None or layer != self.head[0]:
            return eager(query, key, value, mask, **settings)
        number = self.head[1]
        if self.kind == "uniform":
            query = query.clone()
            query[:, number] = 0  # so all logits of the head are 0, also after scale and soft-cap
        outputs, weights = eager(query, key, value, mask, **settings)
        if self.kind == "output":
            outputs[:, :, number] = 0
        return outputs, weights


def _divergences(backbone: Backbone, group: Sequence[Sample], without: Without) -> Tensor:
    """KL of every head and prompt: (layers, prompts, heads), nats, float64, on the CPU."""
    batch, blocks = padded(group), list(backbone.blocks)
    entered: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _m, args: entered.append(args[0])) for block in blocks]
    without.head = None
    with attached(hooks):
        whole = _next_token(backbone, batch)
    finite = Finite()
    finite.check("next-token logits", whole)
    finite.raise_for(batch)
    found = []
    for layer, hidden in enumerate(entered):

        def skipped(number: int, _forward, layer: int = layer, hidden: Tensor = hidden):
            """A block below the layer: the last of them returns what the layer gets, the others are passed by."""
            return lambda given, *_args, **_settings: hidden if number == layer - 1 else given

        with replaced_forwards(blocks[:layer], skipped):
            for head in range(backbone.config.num_attention_heads):
                without.head = layer, head
                changed = _next_token(backbone, batch)
                found.append((whole.exp() * (whole - changed)).sum(1).clamp(min=0).cpu())
    return torch.stack(found).unflatten(0, (len(blocks), -1)).transpose(1, 2)


def _next_token(backbone: Backbone, batch: Batch) -> Tensor:
    """Log-probabilities of the token after each prompt: (prompts, vocabulary), float64."""
    positions = torch.arange(batch.attention_mask.shape[1]) == batch.attention_mask.sum(1, keepdim=True) - 1
    inputs = batch.to(backbone.device)
    logits = backbone.logits(inputs.input_ids, inputs.attention_mask, positions)
    return logits.double().log_softmax(dim=1)


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """Mean over the prompts of s_h, nats, or by worst rank: float32, (heads,)."""
    yield from head_scores(evidence, options["prompts"])


def details(backbone: Backbone, evidence: Evidence, options: dict, address: str) -> dict[str, Tensor]:
    """``importances``: s_h of each prompt, nats; see `head_details`."""
    return head_details(evidence[address])


def shuffle(evidence: Evidence, seed: int) -> Evidence:
    """Permute heads within their layer, alike for all prompts. See `shuffle_units`."""
    return shuffle_units(evidence, seed)


def merge(
    evidence: Evidence, more: Evidence, samples: tuple[Sequence[Sample], Sequence[Sample]], options: dict
) -> Evidence:
    """The prompts of both, (prompts, heads) for each layer."""
    return {where: torch.cat([values, more[where]]) for where, values in evidence.items()}
