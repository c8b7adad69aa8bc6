"""Scores of weights pooled to the units that were planted, so that all methods are compared at one granularity.

    neuron k of a block    the sum over its weights: row k of up and column k of down (what alignment could change)
    decoder block          the mean over its weights

Only weights that the method scores count; a unit without any is tied below all others. The score of a method's own
neuron or layer is that of each of its weights. So its layers keep their scores, and its neurons are ordered by the sum
of their scores in up and down, which have equally many weights per neuron.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from safety_regions.overlap.curves import area_of_precision, area_of_roc, curve
from safety_regions.units.addresses import address, parse_address
from safety_regions.units.granularity import FEED_FORWARD, GRANULARITIES

POOLED = (
    "pooled_auroc",
    "pooled_average_precision",
    "pooled_chance_auroc",
    "pooled_chance_average_precision",
)
PERMUTATIONS = 200
"""Permutations of pooled scores that the average precision by chance is the mean of."""

ByAddress = Mapping[str, np.ndarray]
NEURON, LAYER = GRANULARITIES["neuron"], GRANULARITIES["layer"]


class Units(NamedTuple):
    """Units of the kind that was planted, in the order of blocks; three arrays (n,)."""

    scores: np.ndarray  # float64, -inf where none of the unit's weights is scored
    planted: np.ndarray  # bool
    layer: np.ndarray  # decoder block, 0-based


def pooled_areas(scores: ByAddress, truth: ByAddress, granularity: str) -> dict[str, float | None]:
    """Compute AUROC and average precision of pooled scores, then what the same scores give by chance.

    By chance means: with the scores permuted within each block. The AUROC by chance is exact. The average precision is
    the mean of `PERMUTATIONS` seeded draws.

    Returns:
        The keys `POOLED`; see `pool_units` for the arguments. All are null if weights were planted, and those by chance
        if whole layers were: a block has one unit, and all blocks together are too few for a mean to say much.
    """
    units = pool_units(scores, truth, granularity)
    if units is None:
        return dict.fromkeys(POOLED)
    values, place = np.unique(units.scores, return_inverse=True)
    counts = curve(place, values.size, units.planted)
    by_chance = (None, None) if granularity == LAYER.name else _by_chance(units, place, values.size)
    found = (area_of_roc(counts), area_of_precision(counts), *by_chance)
    return dict(zip(POOLED, found, strict=True))


def _by_chance(units: Units, place: np.ndarray, n: int) -> tuple[float | None, float | None]:
    share = np.bincount(units.layer, weights=units.planted) / np.maximum(np.bincount(units.layer), 1)
    rng = np.random.default_rng(0)
    orders = (np.lexsort((rng.random(place.size), units.layer)) for _ in range(PERMUTATIONS))
    drawn = [area_of_precision(curve(place, n, units.planted[order])) for order in orders]
    return area_of_roc(curve(place, n, share[units.layer])), float(np.mean(drawn)) if all(drawn) else None


def pool_units(scores: ByAddress, truth: ByAddress, granularity: str) -> Units | None:
    """Pool scores and truth to neurons or layers; None if the plant consists of weights.

    Args:
        scores: address -> score of each weight, float64 (out, in), -inf where the method gives none.
        truth: address -> whether each weight is planted, bool (out, in); the same addresses.
        granularity: of the plant: weight, neuron or layer.
    """
    if granularity not in POOLS:
        return None
    blocks = sorted({parse_address(where).layer for where in truth})
    pooled = [POOLS[granularity](scores, truth, block) for block in blocks]
    values, planted = (np.concatenate(parts) for parts in zip(*pooled, strict=True))
    return Units(values, planted, np.repeat(blocks, [len(part) for part, _ in pooled]))


def _neurons(scores: ByAddress, truth: ByAddress, block: int) -> tuple[np.ndarray, np.ndarray]:
    homes = [address(block, projection) for projection in FEED_FORWARD]
    axes = [0 if parse_address(where).projection in NEURON.columns else 1 for where in homes]
    total, scored = _summed(_sums(scores[where], axis) for where, axis in zip(homes, axes, strict=True))
    planted = [truth[where].any(axis=axis) for where, axis in zip(homes, axes, strict=True)]
    return np.where(scored > 0, total, -np.inf), np.any(planted, axis=0)


def _layers(scores: ByAddress, truth: ByAddress, block: int) -> tuple[np.ndarray, np.ndarray]:
    homes = [where for where in truth if parse_address(where).layer == block]
    total, scored = _summed(_sums(scores[where], None) for where in homes)
    planted = any(truth[where].any() for where in homes)
    return np.array([total / scored if scored else -np.inf]), np.array([planted])


POOLS: dict[str, Callable[[ByAddress, ByAddress, int], tuple[np.ndarray, np.ndarray]]] = {
    NEURON.name: _neurons,
    LAYER.name: _layers,
}


def _sums(values: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The sum over the scored weights along an axis, or over all of them, and their number."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(axis=axis), known.sum(axis=axis)


def _summed(parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    totals, counts = zip(*parts, strict=True)
    return sum(totals), sum(counts)
