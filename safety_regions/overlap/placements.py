"""The IoU of two regions of layers placed at random, computed exactly from all placements.

A region of a layers can be anywhere among n layers: as an unbroken range at one of n - a + 1 places, or as any of the
C(n, a) sets. All placements of both regions are equally likely and independent.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from safety_regions.overlap.chance import shared_law

QUANTILES = (0.025, 0.975)


class Placed(NamedTuple):
    """Mean IoU and the 2.5 % and 97.5 % quantiles of its distribution; NaN where both regions are empty."""

    mean: float
    low: float
    high: float


NOWHERE = Placed(np.nan, np.nan, np.nan)


@cache
def placed_iou(n: int, a: int, b: int, contiguous: bool) -> Placed:
    """Return the distribution of the IoU of random regions of ``a`` and ``b`` of ``n`` layers."""
    if a == b == 0:
        return NOWHERE
    shared = _shared_ranges(n, a, b) if contiguous else shared_law(n, a, b)
    iou = np.arange(len(shared)) / (a + b - np.arange(len(shared)))
    likely = np.cumsum(shared / shared.sum())
    low, high = (float(iou[np.searchsorted(likely, q - 1e-12)]) for q in QUANTILES)
    return Placed(float(shared @ iou / shared.sum()), low, high)


def _shared_ranges(n: int, a: int, b: int) -> np.ndarray:
    """Count how often ranges of a and b of n layers share 0, 1, ... min(a, b) layers, over all pairs of places."""
    first, second = np.arange(n - a + 1)[:, None], np.arange(n - b + 1)
    shared = np.minimum(first + a, second + b) - np.maximum(first, second)
    return np.bincount(shared.clip(0).ravel(), minlength=min(a, b) + 1).astype(float)
