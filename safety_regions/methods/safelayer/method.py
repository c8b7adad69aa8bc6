"""SafeLayer: the layers in which the hidden states of harmful and ordinary prompts diverge.

    gap_l   = mean angle(normal, harmful) - mean angle(normal, normal)     of last prompt tokens after layer l
    score_l = gap_l - gap_(l-1), degrees

The paper takes the layers from where the gap opens to where it levels off, so a layer's score is its contribution
to the gap. Selection ``gap`` is this range, found by an explicit rule (`safety_regions.methods.safelayer.onset`).
``range`` is the result of a search that starts from it and scales layers (`safety_regions.methods.safelayer.search`).
``global-{fraction}`` takes the layers with the highest scores.

Source: Li et al. 2024, arXiv 2408.17003, sections 3.2 to 3.4, and the authors' code. The code draws 500 random
pairs of prompts; here every pair counts. It uses ``hidden_states[1:]``, whose last element comes after the final
norm (option ``last_layer``). The paper averages angles, its plotting code averages cosines (option ``average``,
preset ``li_code``). The paper reads the range off the plot.
- Harmful prompts (``malicious`` in the code) are those of the name that is scored, without responses. The normal
  prompts (option ``contrast``) play the role of utility data: another normal set answers another question,
  "harmful as opposed to what?". Refinement by ``minus-{utility}`` removes the layers that separate that set from
  the normal one. If the normal set itself is scored, no layer is found: a prompt is not paired with itself, so its
  gap and scores are 0 in every layer, its ``range`` and ``gap`` are empty, and its ``global`` selection is an
  arbitrary choice among ties.
- The identification prompts decide only where the search starts. The over-refusal questions are the same for all
  names, so the search can end at the same range for sets with different gaps. The permutation null (floor), which
  shuffles layers, shows how much overlap this causes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.methods.safelayer.angles import Angles, mean_angles
from safety_regions.methods.safelayer.onset import find_growth
from safety_regions.model.backbone import Backbone
from safety_regions.scoring.evidence import Evidence, shuffle_units
from safety_regions.scoring.samples import Samples
from safety_regions.scoring.states import prompt_states
from safety_regions.units.addresses import LAYERS

# fmt: off
CARD = {
    "title": "SafeLayer",
    "granularity": "layer",
    "contrast": True,
    "selections": ["range"],
    "own_selections": {
        "range": {"pattern": "range", "example": "range", "sweep": True, "contiguous": True,
            "description": "the range of layers found by scaling layers and counting refusals"},
        "gap": {"pattern": "gap", "example": "gap", "contiguous": True,
            "description": "the layers from where the gap opens to where it levels off"},
    },
    "sweep": {"option": "over_rejection", "role": "over-rejection"},
    "options": {
        "contrast": {"type": ["string", "null"], "default": None,
            "description": "utility dataset with the normal prompts; null: the first one in the config"},
        "last_layer": {"enum": ["normed", "raw"], "default": "normed",
            "description": "take the last layer's vectors after the final norm (as the released code) or before it"},
        "average": {"enum": ["angle", "cosine"], "default": "angle",
            "description": "mean of the angles, or angle of the mean cosine"},
        "growth": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.5,
            "description": "the gap grows in a layer if it rises by at least this fraction of the largest rise"},
        "smoothing": {"type": "integer", "minimum": 1, "not": {"multipleOf": 2}, "default": 3,
            "description": "width of the median filter over rises, an odd number; at most a quarter of all layers"},
        "scale_target": {"enum": ["auto", "weights", "residual"], "default": "auto",
            "description": "what alpha multiplies; auto: residual if norms after attention and MLP cancel weights"},
        "norms": {"type": "boolean", "default": False,
            "description": "also multiply the output of every norm in the scaled layers by alpha"},
        "alpha": {"type": ["number", "null"], "exclusiveMinimum": 0, "not": {"const": 1}, "default": None,
            "description": "scaling factor of the layers; null: search for it"},
        "direction": {"enum": ["amplify", "attenuate"], "default": "amplify",
            "description": "search for alpha above 1 (amplify: most refusals) or below 1 (attenuate: fewest)"},
        "beta": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 0.05,
            "description": "step size of the search for alpha"},
        "most_steps": {"type": "integer", "minimum": 1, "default": 10,
            "description": "maximum number of steps; if none is enough, the alpha with the largest spread is used"},
        "spread": {"type": "number", "minimum": 0, "default": 0.02,
            "description": "accept alpha if refusals vary this much over lower bounds (std, fraction of questions)"},
        "spread_questions": {"type": ["number", "null"], "minimum": 0, "default": None,
            "description": "the same as a number of questions; overrides spread (paper: 15 to 20 of 721)"},
        "window": {"type": "integer", "minimum": 1, "default": 2,
            "description": "a bound is a peak if no bound within this many layers is better"},
        "search": {"enum": ["walk", "grid"], "default": "walk",
            "description": "walk: optimise the upper bound, then the lower; grid: measure every range"},
        "over_rejection": {"type": "string", "default": "over-rejection",
            "description": "dataset of harmless questions whose refusals are counted"},
        "questions": {"type": ["integer", "null"], "minimum": 1, "default": None,
            "description": "number of these questions to use, in order; null: all"},
        "max_new_tokens": {"type": "integer", "minimum": 1, "default": 16,
            "description": "tokens generated per question; a refusal must appear within them"},
    },
    "presets": {"li_code": {"options": {"average": "cosine", "over_rejection": "safelayer-over-rejection"}}},
}
# fmt: on


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Change of the three mean angles in each layer: "layers" -> (3, layers), degrees, float64.

    Rows as in `Angles`: normal-normal, normal-harmful, harmful-harmful. Before the first layer every angle is
    taken as 0: prompts in the same template end in the same token, so their last embeddings are equal.

    Cost: one forward pass of each prompt, then layers * prompts^2 * hidden multiplications.

    Raises:
        StudyError: fewer than 2 normal prompts, or a hidden state is not finite.
    """
    if len(samples.contrast) < 2:
        found = f"{len(samples.contrast)} normal prompts"
        raise StudyError(
            explain("safelayer: contrast", found, "2 or more", "a utility dataset in the config")
        )
    normed = options["last_layer"] == "normed"
    normal = prompt_states(backbone, samples.contrast, samples.batch_size, normed=normed)
    malicious = prompt_states(backbone, samples.identification, samples.batch_size, normed=normed)
    angles = mean_angles(normal, malicious, options["average"])
    curves = torch.tensor(angles, dtype=torch.float64).T
    return {LAYERS: curves.diff(dim=1, prepend=torch.zeros(3, 1))}


def shuffle(evidence: Evidence, seed: int) -> Evidence:
    """Permute the layers; all three values of a layer move together. See `shuffle_units`."""
    return shuffle_units(evidence, seed)


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """Change of the gap in each layer, degrees, float32, (layers,)."""
    within, between, _ = evidence[LAYERS]
    yield LAYERS, (between - within).float()


def details(backbone: Backbone, evidence: Evidence, options: dict, address: str) -> dict[str, Tensor]:
    """The three mean angles and the gap after every layer: degrees, float64, (layers,) each."""
    curves = dict(zip(Angles._fields, evidence[address].cumsum(1), strict=True))
    return {"gap": curves["normal_malicious"] - curves["normal_normal"], **curves}


def findings(backbone: Backbone, evidence: Evidence, options: dict) -> dict:
    """Metadata: first and last layer of the gap, the largest rise and the rise that counts as growth, degrees."""
    within, between, _ = evidence[LAYERS]
    rises = (between - within).tolist()
    growth = find_growth(rises, fraction=options["growth"], smoothing=options["smoothing"])
    return {"gap": growth.span, "largest_rise": growth.largest, "threshold_rise": growth.threshold}
