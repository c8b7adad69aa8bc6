"""CNA, contrastive neuron attribution: how much a neuron's mean activation differs between two classes of prompts.

    score_k = |delta_k|,   delta_k = mean over harmful prompts of h_k - mean over ordinary prompts of h_k

h_k = (act(gate) * up)_k is the input k of `down` at the last prompt token. Neuron k is row k of up and column k of
down. Both get its score; its row of gate is not scored, nor is attention. Ordinary prompts are those of the option
``contrast``. A set that is contrasted with itself has delta = 0.

The paper takes the best 0.1 % of the neurons of all layers together (``global-0.001``). Activations grow with depth, so
these are mostly neurons of the last layers, whatever the prompts are. ``matrix-0.001`` takes 0.1 % of each layer. With
``by_effect``, delta_k is multiplied by the norm of column k of down, which removes the arbitrary scale of h_k. Where a
norm follows the MLP (Gemma 2 and 3, OLMo 2), that is the effect before the norm.

Source: arXiv 2605.12290, equation 1 and section 3.2; NousResearch/neural-steering @0083b85, neuron_steer/core.py
1007-1107. Where paper and code differ, the defaults follow the paper:

- k: 0.1 % in the paper; the benchmarks of the code pass 1600 neurons for every model.
- The code skips the layers 0 and 1 (option ``skip_layers``; skipped layers have no scores).
- The paper excludes neurons that are active whatever the prompt; the discovery of the code does not. The option
  ``universal`` excludes them; see `safety_regions.methods.cna.universal` for what is ours in it.
- The preset ``nous_code`` skips two layers and takes the fraction that is 1600 neurons of Llama-3.1-8B.
- Both keep neurons that fire more for ordinary prompts (``sign: positive`` ranks by delta itself).
- The code takes means in bfloat16, adds a second BOS token to some texts, and drops |delta| below 1e-6. None of this
  is reproduced.

Shuffled evidence (permutation null, or floor): the means of neurons are permuted within their layer, alike for up and
down; the norms of down's columns stay. Layers keep their values of delta, so the floor of a ``global`` selection shows
how much of an overlap is due to the share of each layer alone.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.methods.cna.universal import shares_of_prompts
from safety_regions.model.backbone import Backbone
from safety_regions.scoring.evidence import Evidence, shuffle_units
from safety_regions.scoring.moments import class_moments, evidence_of, feed_forward
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "CNA",
    "granularity": "neuron",
    "projections": ["up", "down"],
    "streams": True,
    "contrast": True,
    "selections": ["global-0.001", "matrix-0.001"],
    "options": {
        "contrast": {
            "type": ["string", "null"],
            "default": None,
            "description": "utility dataset with the ordinary prompts; null: the first one in the config",
        },
        "sign": {
            "enum": ["both", "positive"],
            "default": "both",
            "description": "rank neurons by |delta|, or by delta: those that fire more for harmful prompts",
        },
        "by_effect": {
            "type": "boolean",
            "default": False,
            "description": "multiply delta by the norm of the neuron's column of down",
        },
        "skip_layers": {
            "type": "integer",
            "minimum": 0,
            "default": 0,
            "description": "number of first layers without scores (2 in the released code)",
        },
        "universal": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": None,
            "description": (
                "exclude neurons that are among the most active 0.1 % for at least this fraction of the ordinary "
                "prompts (0.8 in the paper); null: exclude none"
            ),
        },
    },
    "presets": {"nous_code": {"options": {"skip_layers": 2}, "selections": ["global-0.003721"]}},
}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Means over harmful and over ordinary prompts: address of down -> (2, neurons), float64.

    With the option ``universal``, a third row holds delta of the excluded neurons, 0 for the others.

    Raises:
        StudyError: there are fewer than 2 ordinary prompts, no layer is left, or a value is not finite.
    """
    n, skipped = len(backbone.blocks), options["skip_layers"]
    if skipped >= n:
        raise StudyError(explain("cna: skip_layers", f"{skipped} of {n} layers", f"at most {n - 1}"))
    moments = class_moments(backbone, samples)
    means = {where: values[:, 1] / values[:, 0] for where, values in moments.items()}
    if options["universal"] is None:
        return means
    shares = shares_of_prompts(backbone, samples)
    excluded = {where: (found >= options["universal"]).double() for where, found in shares.items()}
    return {
        where: torch.stack([*values, excluded[where] * _difference(values)])
        for where, values in means.items()
    }


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """|delta|, or delta, perhaps times a norm: float32, (neurons,), the same for up and down of a layer.

    Excluded neurons get 0.
    """
    down = dict(backbone.weights()) if options["by_effect"] else {}
    for where in list(evidence)[options["skip_layers"] :]:
        values = evidence[where]
        score = _difference(values) - values[2:].sum(0)
        if options["by_effect"]:
            score = score * down[where].float().norm(dim=0).cpu()
        yield from feed_forward(where, (score.abs() if options["sign"] == "both" else score).float())


def details(backbone: Backbone, evidence: Evidence, options: dict, address: str) -> dict[str, Tensor]:
    """``difference``: delta of each neuron with its sign, float64, (neurons,)."""
    return {"difference": _difference(evidence_of(evidence, address))}


def shuffle(evidence: Evidence, seed: int) -> Evidence:
    """Permute neurons within their layer; what belongs to a neuron moves together. See `shuffle_units`."""
    return shuffle_units(evidence, seed)


def _difference(evidence: Tensor) -> Tensor:
    """delta of the neurons of a layer, from the evidence of `gather`."""
    return evidence[0] - evidence[1]
