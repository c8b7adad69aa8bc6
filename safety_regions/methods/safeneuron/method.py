"""SafeNeuron: units whose removal changes what their block computes, for every harmful query.

A neuron is a row of q, k, v or up, or a column of down; T tokens, norms over tokens and outputs:

    up_k, down_k   || (h * e_k) W_down^T || = ||h[:, k]|| ||W_down[:, k]||,   h = act(gate) * up
    v (kv head, j) || sum over the group's heads a of c_a W_O[:, a j]^T ||,   c_a what head a mixes of dimension j
    q (head, j)    || softmax(S - scaling q_j k_j^T) - softmax(S) ||          S the model's own logits of that head
    k (kv head, j) the same over all heads of the group (with one head per group, that of q)

q_j and k_j are what the model multiplies, after norm and rotation; S has its scale, soft-cap (applied to what is
left), causal mask and window. For each query, units are ranked within their module (layer and projection, 1 is
the largest). The region is what ranks high for every query (``common-``) or is important enough (``above-``), so
every unit is stored with its sorted ranks and importances: 8 bytes per prompt and neuron before compression
(100 prompts, an 8B Llama with 1.1e6 neurons: 0.9 GB). The score, (n + 1 - worst rank) / n, orders units by their
worst rank. gate and o are not scored. Where a norm or a multiplier follows attention and MLP (Gemma, OLMo 2; Granite),
importances are taken before it.

``importance: released`` follows the code instead: up and down sum_t |up(x_t)_k|; q the squared change, without
the scale in the removed term; v sum_t |input of o|; a row of k or v takes the largest of its group's entries.
(The code intersects entries first and then maps them to rows; here rows are ranked among rows.)

Shuffled evidence (floor): units change places within their module, alike for all prompts. Where the formula
factors (up, down) ||h[:, k]|| moves and ||W_down[:, k]|| stays; elsewhere the whole importance moves.

Source: Zhao et al. 2025 (ICLR), "Understanding and Enhancing Safety Mechanisms of LLMs via Safety-Specific Neuron";
code DAMO-NLP-SG/multilingual_analysis @be2b161, modeling_llama.py 224-249, 376-457, 1299-1319; k of 1000 of 4096
(attention) and 2000 of 14336 (feed-forward) from its README: ``common-plnd``. It reads raw lines, no template.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from safety_regions.methods.safeneuron.attention import Attention, watched_attention
from safety_regions.methods.safeneuron.formulas import FORMULAS, Seen
from safety_regions.methods.safeneuron.ranks import rank_units, worst_rank_scores
from safety_regions.model.backbone import Backbone, ScoredLinear
from safety_regions.model.batches import Batch, Sample
from safety_regions.model.finite import Finite
from safety_regions.scoring.evidence import Evidence, shuffle_units
from safety_regions.scoring.passes import watch_inputs
from safety_regions.scoring.samples import Samples
from safety_regions.units.granularity import GRANULARITIES

CARD = {
    "title": "SafeNeuron",
    "granularity": "neuron",
    "selections": ["common-plnd"],
    "own_selections": {
        "common": {
            "pattern": r"common-(?:plnd|0\.\d*[1-9]\d*|1(?:\.0+)?)(?:-(?:0\.\d*[1-9]\d*|1(?:\.0+)?))?",
            "example": "common-0.2-0.9",
            "description": "in the best fraction (0-1] of its module for every prompt, or for a fraction of them",
        },
        "above": {
            "pattern": r"above-(?:0\.\d*[1-9]\d*|[1-9]\d*(?:\.\d+)?)(?:-(?:0\.\d*[1-9]\d*|1(?:\.0+)?))?",
            "example": "above-0.01",
            "description": "importance of at least that much for every prompt, or for a fraction of them",
        },
    },
    "options": {
        "importance": {
            "enum": ["paper", "released"],
            "default": "paper",
            "description": "the paper's formulas, or those of the released code",
        },
        "tokens": {
            "enum": ["prompt", "all"],
            "default": "prompt",
            "description": "what the model reads and what counts: the rendered prompt, or prompt and response",
        },
        "index_bug": {
            "type": "boolean",
            "default": False,
            "description": "released only: rows of k and v by dividing the whole index by the group size",
        },
    },
    "presets": {"plnd_code": {"options": {"importance": "released"}, "selections": ["common-plnd"]}},
}
# Projections whose evidence is that of another: a feed-forward neuron is one row of up and one column of down.
EVIDENCE = {**{projection: projection for projection in GRANULARITIES["neuron"].projections}, "down": "up"}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Per prompt (longest first) what removal changes: address of q, k, v or up -> (prompts, units), on the CPU.

    Up to weights that `scores` puts in: for the paper's feed-forward neurons ||h[:, k]||, for all others the
    importance itself.

    Raises:
        StudyError: a value is not finite; address and prompt ids are named.
    """
    texts = [_counted(sample, options["tokens"]) for sample in samples.identification]
    with watched_attention(backbone) as attended:
        return watch_inputs(
            backbone, samples._replace(identification=texts), lambda _: Importances(attended, options)
        )


class Importances:
    """What the formulas make of each prompt, in the order in which prompts pass."""

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


def _counted(sample: Sample, tokens: str) -> Sample:
    # Attention is causal: what the prompt's tokens see is the same with and without the response.
    return sample._replace(ids=sample.ids[: sample.prompt_length]) if tokens == "prompt" else sample


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
    """Units in other places of their module, the same for all prompts; a feed-forward neuron's two sides together."""
    return shuffle_units(evidence, seed)


def _importances(backbone: Backbone, evidence: Evidence, options: dict, address: str) -> Tensor:
    layer, _, projection = address.rpartition(".")
    importances = evidence[f"{layer}.{EVIDENCE[projection]}"]
    if EVIDENCE[projection] == "up" and options["importance"] == "paper":
        weight = dict(backbone.weights())[f"{layer}.down"]
        importances = importances * weight.float().norm(dim=0).cpu()
    return importances
