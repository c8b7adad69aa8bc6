"""SafeLayer: the layers in which harmful prompts part from ordinary ones.

    gap_l   = mean angle(normal, malicious) - mean angle(normal, normal)     of last prompt tokens after layer l
    score_l = gap_l - gap_(l-1), degrees

The paper takes its layers from where the gap opens to where it levels off, so a layer's score is what it adds to
the gap. Selection ``gap`` is that range by a stated rule (`...safelayer.onset`), ``range`` what scaling
layers makes of it (`safety_regions.methods.safelayer.search`), ``global-{fraction}`` the layers that add most.

Source: Li et al. 2024, arXiv 2408.17003, sections 3.2 to 3.4, and the authors' code, which draws 500 random pairs
where every pair counts here, and takes ``hidden_states[1:]``, whose last element is behind the final norm (option
``last_layer``). The paper averages angles, its plotting code cosines (``average``, preset ``li_code``), and reads
the range off the plot.
- Malicious prompts are those of the name that is scored, responses left aside. The normal ones (``contrast``) take
  the part of utility: another normal set is another answer to "malicious as opposed to what?". Refinement by
  ``minus-{utility}`` removes the layers that tell that set from the normal one. For the normal set itself there are
  none: a prompt is not paired with itself, so its gap and scores are 0 throughout, its ``range`` and ``gap`` are
  empty, and its ``global`` selection is a tie that says nothing.
- Only the start of the search depends on the identification set. Over-rejection does not, so it can bring sets
  with different gaps to one range; the floor, from layers that changed places, shows how much overlap that makes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.methods.safelayer.angles import Angles, mean_angles
from safety_regions.methods.safelayer.onset import find_growth
from safety_regions.methods.safelayer.vectors import prompt_states
from safety_regions.model.backbone import Backbone
from safety_regions.scoring.evidence import Evidence, shuffle_units
from safety_regions.scoring.samples import Samples
from safety_regions.units.addresses import LAYERS

# fmt: off
CARD = {
    "title": "SafeLayer",
    "granularity": "layer",
    "contrast": True,
    "selections": ["range"],
    "own_selections": {
        "range": {"pattern": "range", "example": "range", "sweep": True, "contiguous": True,
            "description": "the layers that scaling settles on"},
        "gap": {"pattern": "gap", "example": "gap", "contiguous": True,
            "description": "the layers from where the gap opens to where it levels off"},
    },
    "sweep": {"option": "over_rejection", "role": "over-rejection"},
    "options": {
        "contrast": {"type": ["string", "null"], "default": None,
            "description": "utility dataset of the normal prompts; null: the first of the config"},
        "last_layer": {"enum": ["normed", "raw"], "default": "normed",
            "description": "the last layer's vectors after the final norm, as the released code has them, or before"},
        "average": {"enum": ["angle", "cosine"], "default": "angle",
            "description": "mean of the angles, or angle of the mean cosine"},
        "growth": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.5,
            "description": "fraction of the largest rise from which the gap counts as growing"},
        "smoothing": {"type": "integer", "minimum": 1, "not": {"multipleOf": 2}, "default": 3,
            "description": "layers over which the median rise is taken, odd; at most a quarter of all layers"},
        "scale_target": {"enum": ["auto", "weights", "residual"], "default": "auto",
            "description": "what alpha multiplies; auto: residual where norms behind attention and MLP cancel weights"},
        "norms": {"type": "boolean", "default": False,
            "description": "alpha also multiplies the blocks' norms"},
        "alpha": {"type": ["number", "null"], "exclusiveMinimum": 0, "not": {"const": 1}, "default": None,
            "description": "factor on the scaled layers; null: searched for"},
        "direction": {"enum": ["amplify", "attenuate"], "default": "amplify",
            "description": "whether the search for alpha goes above 1 (most refusals) or below (fewest)"},
        "beta": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 0.05,
            "description": "step of the search for alpha"},
        "most_steps": {"type": "integer", "minimum": 1, "default": 10,
            "description": "steps after which the alpha of the widest spread is taken"},
        "spread": {"type": "number", "minimum": 0, "default": 0.02,
            "description": "standard deviation of refusals over lower bounds that settles alpha, share of questions"},
        "spread_questions": {"type": ["number", "null"], "minimum": 0, "default": None,
            "description": "the same in questions, in place of the fraction (the paper: 15 to 20 of 721)"},
        "window": {"type": "integer", "minimum": 1, "default": 2,
            "description": "bounds on either side of a peak that must not beat it"},
        "search": {"enum": ["walk", "grid"], "default": "walk",
            "description": "upper bound then lower bound, or every range"},
        "over_rejection": {"type": "string", "default": "over-rejection",
            "description": "dataset of the harmless questions whose refusals are counted"},
        "questions": {"type": ["integer", "null"], "minimum": 1, "default": None,
            "description": "use the first so many of them; null: all"},
        "max_new_tokens": {"type": "integer", "minimum": 1, "default": 16,
            "description": "tokens in which a refusal must show"},
    },
    "presets": {"li_code": {"options": {"average": "cosine", "over_rejection": "safelayer-over-rejection"}}},
}
# fmt: on


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """What each layer adds to the three mean angles: "layers" -> (3, layers), degrees, float64.

    Rows as in `Angles`: normal with normal, normal with malicious, malicious with malicious. Before the first
    layer every angle counts as 0: prompts of one template end in the same token, so their embeddings are equal.

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
    """Evidence in which layers change places, each with all that it adds; see `shuffle_units`."""
    return shuffle_units(evidence, seed)


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """What each layer adds to the gap, degrees, float32, (layers,)."""
    within, between, _ = evidence[LAYERS]
    yield LAYERS, (between - within).float()


def details(backbone: Backbone, evidence: Evidence, options: dict, address: str) -> dict[str, Tensor]:
    """The curves after every layer, degrees, float64, (layers,) each: the three mean angles and the gap."""
    curves = dict(zip(Angles._fields, evidence[address].cumsum(1), strict=True))
    return {"gap": curves["normal_malicious"] - curves["normal_normal"], **curves}


def findings(backbone: Backbone, evidence: Evidence, options: dict) -> dict:
    """For the stamp: where the gap opens and levels off (first and last layer), and the rises that decided."""
    within, between, _ = evidence[LAYERS]
    rises = (between - within).tolist()
    growth = find_growth(rises, fraction=options["growth"], smoothing=options["smoothing"])
    return {"gap": growth.span, "largest_rise": growth.largest, "threshold_rise": growth.threshold}
