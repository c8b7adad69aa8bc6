"""Magnitude: a blind reference that sees the weights and no prompt.

    score_ij = |W_ij|

SNIP, Wanda and NLSR multiply their evidence by |W|, which all datasets share. What this method finds, a
method that looks at data must beat; its regions for two datasets are the same (IoU 1).
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
    """Nothing: no prompt is looked at."""
    return {}


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """|W|, float32, (out, in) per address."""
    for address, weight in backbone.weights():
        yield address, weight.float().abs()
