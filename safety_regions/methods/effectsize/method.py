"""Effect size: neurons whose activation for harmful prompts exceeds that for ordinary ones by several deviations.

    effect (ES)     d_k = (mean_harmful h_k - mean_ordinary h_k) / s_k      s_k^2 = pooled variance over prompts
    shift (SAS)     z_k = (delta_k - mean of delta) / (sd of delta)         over the neurons of the layer

    region of ES    d_k > effect_threshold
    region of SAS   z_k > shift_threshold and delta_k > 0
    union           in either region (the default)

h_k = (act(gate) * up)_k is the input k of `down`, one number per prompt (option ``tokens``), and delta_k the difference
of its class means. s_k^2 = (SS_harmful + SS_ordinary) / (n_harmful + n_ordinary - 2), where SS is the sum of squared
deviations from the class mean. d_k = 0 where s_k = 0 up to rounding (`RESOLUTION`). The sd of delta divides by the
number of neurons. Neuron k is row k of up and column k of down, and both get its score; gate and attention are not
scored.

The score is d / effect_threshold (``effect``), z / shift_threshold (``shift``), or the larger of the two (``union``). z
counts only where delta > 0. A region holds the neurons whose score is above 1: selection ``score-1``. Its size is a
result, and may be 0. Selections by rank work too.

Source: Wang et al. 2026, arXiv 2602.12158 ("SafeNeuron", not that of Zhao et al. 2025), equations 3, 5 and 6,
algorithm 1; no code was released. The thresholds are the paper's for Qwen, 3 and 2 (appendix B.3); it takes 2 and 2 for
Llama. What the paper leaves open, and where it contradicts itself:

- It does not say how the tokens of a prompt become one number. Its data pipeline is that of NeuroStrike, which takes
  the maximum over tokens, padding included; the preset ``sn2`` takes it without padding (``sn2_llama``: with the
  thresholds for Llama). The maximum grows with the length of a prompt, so that d then measures length unless the
  ordinary prompts are as long. The default is the last prompt token.
- Theorem 3.1 bounds false positives as if d were a t statistic, t = d sqrt(n m / (n + m)). The published sizes fit d,
  not t, and d is what is computed. If the classes do not differ, its sd is sqrt(1/n + 1/m): 0.14 for 100 prompts each.
- z has no null distribution at all: z > 2 takes about 2 % of a layer, whatever the prompts are.
- Its regions grow over rounds of ablation and identification; here there is one round.
- Neurons that fall silent for harmful prompts are never selected, as in the paper.

Shuffled evidence (permutation null, or floor): neurons are permuted within their layer, alike for up and down. Shuffled
regions have the same size in each layer.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.scoring.evidence import Changed, Evidence, shuffle_units
from safety_regions.scoring.moments import class_moments, evidence_of, feed_forward
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "Effect size",
    "granularity": "neuron",
    "projections": ["up", "down"],
    "streams": True,
    "contrast": True,
    "selections": ["score-1"],
    "own_selections": {
        "score": {
            "by_score": True,
            "pattern": r"score-(?:0\.\d*[1-9]\d*|[1-9]\d*(?:\.\d+)?)",
            "example": "score-1",
            "description": "neurons whose score is above this number; 1 is the method's own thresholds",
        },
    },
    "options": {
        "contrast": {
            "type": ["string", "null"],
            "default": None,
            "description": "utility dataset with the ordinary prompts; null: the first one in the config",
        },
        "statistic": {
            "enum": ["union", "effect", "shift"],
            "default": "union",
            "description": "effect size of a neuron, its shift among the neurons of its layer, or the larger one",
        },
        "tokens": {
            "enum": ["last", "mean", "max"],
            "default": "last",
            "description": "a prompt's number: the activation at its last token, or the mean or maximum over tokens",
        },
        "effect_threshold": {
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 3,
            "description": "smallest effect size of a region's neuron, in pooled standard deviations",
        },
        "shift_threshold": {
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 2,
            "description": "smallest shift of a region's neuron, in standard deviations over the layer's neurons",
        },
    },
    "presets": {
        "sn2": {"options": {"tokens": "max"}},
        "sn2_llama": {"options": {"tokens": "max", "effect_threshold": 2}},
    },
}

RESOLUTION = 1e-12
"""A class does not vary if its sum of squared deviations is at most this fraction of its sum of squares: deviations of
1e-6 of the values, which float32 activations hardly resolve."""


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Moments of both classes: address of down -> (5, neurons), float64; see `centred`.

    Raises:
        StudyError: there are fewer than 2 ordinary prompts, or a value is not finite.
    """
    moments = class_moments(backbone, samples, options["tokens"])
    return {where: centred(values) for where, values in moments.items()}


def centred(moments: Tensor) -> Tensor:
    """Means and spreads without the level of a neuron: (5, neurons), from the (2, 3, neurons) of `class_moments`.

    Rows: number of harmful prompts, delta, and the sum of their squared deviations from their mean; number of ordinary
    prompts, and the sum of their squared deviations. The mean activation of a neuron itself is left out, so neurons can
    trade places, and groups of prompts be merged after they have.
    """
    n, total, squares = moments.unbind(1)
    mean = total / n
    spread = squares - n * mean.square()
    spread = torch.where(spread > RESOLUTION * squares, spread, 0)
    return torch.stack([n[0], mean[0] - mean[1], spread[0], n[1], spread[1]])


def effect_and_shift(evidence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """delta, d and z of the neurons of a layer, (neurons,) each, from the evidence of `gather`."""
    n, delta, harmful, m, ordinary = evidence
    deviation = ((harmful + ordinary) / (n + m - 2)).sqrt()
    effect = torch.where(deviation > 0, delta / deviation, 0)
    among = delta.std(correction=0)
    shift = (delta - delta.mean()) / among if among > 0 else torch.zeros_like(delta)
    return delta, effect, shift


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """The statistic in units of its threshold: float32, (neurons,), the same for up and down of a layer."""
    for where, values in evidence.items():
        yield from feed_forward(where, _score(values, options).float())


def _score(evidence: Tensor, options: dict) -> Tensor:
    delta, effect, shift = effect_and_shift(evidence)
    effect, shift = effect / options["effect_threshold"], shift / options["shift_threshold"]
    if options["statistic"] == "effect":
        return effect
    if options["statistic"] == "shift":
        return torch.where(delta > 0, shift, shift.clamp(max=0))
    return torch.where(delta > 0, torch.maximum(effect, shift), effect)


def details(backbone: Backbone, evidence: Evidence, options: dict, address: str) -> dict[str, Tensor]:
    """``difference`` (delta), ``effect`` (d) and ``shift`` (z) of each neuron, float64, (neurons,) each."""
    return dict(
        zip(("difference", "effect", "shift"), effect_and_shift(evidence_of(evidence, address)), strict=True)
    )


def shuffle(evidence: Evidence, seed: int) -> Evidence:
    """Permute neurons within their layer; all moments of a neuron move together. See `shuffle_units`."""
    return shuffle_units(evidence, seed)


def merge(
    evidence: Evidence, more: Evidence, samples: tuple[Sequence[Sample], Sequence[Sample]], options: dict
) -> Evidence:
    """The harmful prompts of both groups together; the ordinary prompts are the same in both."""

    def both(where: str, values: Tensor) -> Tensor:
        n, delta, harmful, m, ordinary = values
        n_more, delta_more, harmful_more, _, ordinary_more = more[where]
        every = n + n_more
        between = n * n_more / every * (delta - delta_more).square()
        return torch.stack(
            [
                every,
                (n * delta + n_more * delta_more) / every,
                harmful + harmful_more + between,
                m,
                (n * ordinary + n_more * ordinary_more) / every,
            ]
        )

    return Changed(evidence, both)
