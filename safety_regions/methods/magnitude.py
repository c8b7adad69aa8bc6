"""Magnitude: a data-free baseline that uses the weights and no prompts.

    score_ij = |W_ij|

SNIP, Wanda and NLSR combine their evidence with the weights, which are the same for all datasets. A method that
uses data must beat this baseline. Its regions for any two datasets are identical (IoU 1).
"""

from collections.abc import Iterator

from torch import Tensor

from safety_regions.model.backbone import Backbone
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "Magnitude",
    "granularity": "weight",
    "streams": True,
    "data_free": True,
    "selections": ["row-0.05"],
    "options": {},
    "presets": {},
}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Return no evidence: this method uses no prompts."""
    return {}


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """|W|, float32, (out, in) per address."""
    for address, weight in backbone.weights():
        yield address, weight.float().abs()
