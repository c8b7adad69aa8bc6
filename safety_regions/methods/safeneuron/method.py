"""SafeNeuron: neurons whose removal changes the output of their block, for every harmful query.

A neuron is a row of q, k, v or up, or a column of down. Norms run over tokens and outputs:

    up_k, down_k   || (h * e_k) W_down^T || = ||h[:, k]|| ||W_down[:, k]||,   h = act(gate) * up
    v (kv head, j) || sum over the group's heads a of c_a W_O[:, a j]^T ||,   c_a dimension j of head a's output
    q (head, j)    || softmax(S - scaling q_j k_j^T) - softmax(S) ||          S the model's own logits of that head
    k (kv head, j) the same over all heads of the group (with one head per group, that of q)

q_j and k_j are column j of queries and keys after norm and rotation, as the model multiplies them. S includes the
model's scale, causal mask, window and soft-cap (applied after the removal). For each query, neurons are ranked within
their module (layer and projection; rank 1 is the largest importance). A region holds the neurons that rank high for
every query (``common-``) or are important enough for every query (``above-``). Each neuron is therefore stored with
its sorted ranks and importances: 8 bytes per prompt and neuron before compression (0.9 GB for 100 prompts and the
1.1e6 neurons of an 8B Llama). The score, (n + 1 - worst rank) / n, orders neurons by their worst rank. gate and o are
not scored. If a norm or a multiplier follows attention and MLP (Gemma, OLMo 2; Granite), importances are measured
before it.

``importance: released`` follows the released code instead. up and down: sum_t |up(x_t)_k|. q: the squared change,
without the scale in the removed term. v: sum_t |input of o|. A row of k or v takes the largest of its group's entries.
(The code intersects entries first and then maps them to rows; here rows are ranked among rows.)

Shuffled evidence (permutation null, or floor): neurons are permuted within their module, with the same permutation
for all prompts. For up and down, ||h[:, k]|| moves and ||W_down[:, k]|| stays; for q, k and v the whole importance
moves.

Source: Zhao et al. 2025 (ICLR), "Understanding and Enhancing Safety Mechanisms of LLMs via Safety-Specific Neuron";
code DAMO-NLP-SG/multilingual_analysis @be2b161, modeling_llama.py 224-249, 376-457, 1299-1319. Its README takes the
top 1000 of 4096 neurons (attention) and 2000 of 14336 (feed-forward): ``common-plnd``. The code feeds raw lines to the
model, without a chat template.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from safety_regions.methods.safeneuron.formulas import FORMULAS, Seen
from safety_regions.model.backbone import Backbone, ScoredLinear
from safety_regions.model.batches import Batch, Sample
from safety_regions.model.finite import Finite
from safety_regions.scoring.attention import Attention, watched_attention
from safety_regions.scoring.evidence import Evidence, shuffle_units
from safety_regions.scoring.passes import watch_inputs
from safety_regions.scoring.ranks import rank_units, worst_rank_scores
from safety_regions.scoring.samples import Samples
from safety_regions.units.granularity import GRANULARITIES

CARD = {
    "title": "SafeNeuron",
    "granularity": "neuron",
    "selections": ["common-plnd"],
    "own_selections": {
        "common": {
            "intersects": True,
            "pattern": r"common-(?:plnd|0\.\d*[1-9]\d*|1(?:\.0+)?)(?:-(?:0\.\d*[1-9]\d*|1(?:\.0+)?))?",
            "example": "common-0.2-0.9",
            "description": "neurons in the top fraction (0-1] of their module for all prompts, or a fraction of them",
        },
        "above": {
            "intersects": True,
            "pattern": r"above-(?:0\.\d*[1-9]\d*|[1-9]\d*(?:\.\d+)?)(?:-(?:0\.\d*[1-9]\d*|1(?:\.0+)?))?",
            "example": "above-0.01",
            "description": "neurons with at least this importance for all prompts, or for a fraction of them",
        },
    },
    "options": {
        "importance": {
            "enum": ["paper", "released"],
            "default": "paper",
            "description": "use the formulas of the paper, or those of the released code",
        },
        "tokens": {
            "enum": ["prompt", "all"],
            "default": "prompt",
            "description": "tokens that the model reads and that count: the rendered prompt, or prompt and response",
        },
        "index_bug": {
            "type": "boolean",
            "default": False,
            "description": "reproduce the released code's wrong row index for k and v (importance: released only)",
        },
    },
    "presets": {"plnd_code": {"options": {"importance": "released"}, "selections": ["common-plnd"]}},
}
# Projection -> the projection that holds its evidence: a feed-forward neuron is one row of up and one column of down.
EVIDENCE = {**{projection: projection for projection in GRANULARITIES["neuron"].projections}, "down": "up"}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Effect of removal for each prompt, longest first: address of q, k, v or up -> (prompts, units), on the CPU.

    For feed-forward neurons with the paper's formula this is ||h[:, k]||, and `scores` multiplies by the weights. For
    all others it is the importance itself.

    Raises:
        StudyError: a value is not finite; the message names the address and the prompt ids.
    """
    texts = [sample.prompt if options["tokens"] == "prompt" else sample for sample in samples.identification]
    with watched_attention(backbone) as attended:
        return watch_inputs(
            backbone, samples._replace(identification=texts), lambda _: Importances(attended, options)
        )


class Importances:
    """Importances of each prompt by the formulas, in the order in which the prompts pass through the model."""

    def __init__(self, attended: dict[int, Attention], options: dict) -> None:
        self.attended, self.options, self.finite = attended, options, Finite()
        self.found: dict[str, list[Tensor]] = {}

    def add(self, linear: ScoredLinear, x: Tensor, batch: Batch) -> None:
        formulas = FORMULAS[self.options["importance"]]
        layer, _, projection = linear.slices[-1].address.rpartition(".")
        if projection in formulas:
            inputs = [row[:n] for row, n in zip(x, batch.attention_mask.sum(1).tolist(), strict=True)]
            for name, values in formulas[projection](
                Seen(linear, inputs, self.attended), self.options
            ).items():
                self.finite.check(f"{layer}.{name}", values)
                self.found.setdefault(f"{layer}.{name}", []).append(values.cpu())
            self.finite.raise_for(batch)

    def evidence(self, seen: int) -> Evidence:
        return {address: torch.cat(values) for address, values in self.found.items()}


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """(n + 1 - worst rank) / n, float32, (units,) per address."""
    for layer in range(len(backbone.blocks)):
        for projection in EVIDENCE:
            address = f"layers.{layer}.{projection}"
            yield address, worst_rank_scores(_importances(backbone, evidence, options, address))


def details(backbone: Backbone, evidence: Evidence, options: dict, address: str) -> dict[str, Tensor]:
    """Ranks (int32, ascending) and importances (float32, descending) of an address: (units, prompts) each."""
    importances = _importances(backbone, evidence, options, address)
    return {
        "ranks": rank_units(importances).T.sort(dim=1).values,
        "importances": importances.T.sort(dim=1, descending=True).values,
    }


def shuffle(evidence: Evidence, seed: int) -> Evidence:
    """Permute units within their module, the same way for all prompts and for up and down together."""
    return shuffle_units(evidence, seed)


def merge(
    evidence: Evidence, more: Evidence, samples: tuple[Sequence[Sample], Sequence[Sample]], options: dict
) -> Evidence:
    """The prompts of both, (prompts, units) per address: neurons are compared prompt by prompt."""
    return {address: torch.cat([values, more[address]]) for address, values in evidence.items()}


def _importances(backbone: Backbone, evidence: Evidence, options: dict, address: str) -> Tensor:
    layer, _, projection = address.rpartition(".")
    importances = evidence[f"{layer}.{EVIDENCE[projection]}"]
    if EVIDENCE[projection] == "up" and options["importance"] == "paper":
        weight = dict(backbone.weights())[f"{layer}.down"]
        importances = importances * weight.float().norm(dim=0).cpu()
    return importances
