"""Delta: the size of the change of each weight since before alignment. A data-free baseline.

    score_ij = |W_ij - B_ij|

B are the weights of the base: of the checkpoint that the backbone's card names as its ``base``, or of the first phase
of an organism. Anyone who has both checkpoints can compute it without a prompt, so a method that uses data must beat
it. Its regions for any two datasets are identical (IoU 1). A weight that did not change is in no region (option
``positive``), because a fraction of a matrix that hardly changed would otherwise be filled with ties.

Between the base and the instruct checkpoint of a vendor, most of the change is not about safety. In an organism, all of
it comes from the phase in which it learns to refuse.
"""

from collections.abc import Iterator

from torch import Tensor

from safety_regions.model.backbone import Backbone
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "Weight change",
    "granularity": "weight",
    "streams": True,
    "data_free": True,
    "base": True,
    "selections": ["row-0.05"],
    "options": {
        "positive": {
            "type": "boolean",
            "default": True,
            "description": "only weights that changed enter a region",
        },
    },
    "presets": {},
}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Return no evidence: this method uses no prompts."""
    return {}


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """|W - B|, float32, (out, in) per address."""
    for address, weight, base in backbone.weight_pairs():
        yield address, (weight.float() - base.float()).abs_()
