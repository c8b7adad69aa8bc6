"""Transfer: does the region of one set carry the refusals of another, and do regions with a higher IoU do more alike?

The matrix of effects has a row per region (of set A) and a column per set of prompts (B). A low IoU with full transfer
would mean that regions differ in name only.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd

from safety_regions.behaviour.effects import Effects

DRAWS = 9_999
"""Permutations of the sets, where there are too many to list them all."""


def effect_matrix(
    named: Mapping[str, Effects], operation: str, dose: float, measure: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Effects of the regions of all sets on the prompts of all sets; None if one was not measured.

    Returns:
        The mean effects, (region's set, prompts' set), and the correlations between the regions' effects over all
        prompts, (region's set, region's set); both in the order of ``named``.
    """
    names = list(named)
    try:
        rows = [[named[a].of_prompts(operation, dose, measure, b) for b in names] for a in names]
    except KeyError:
        return None
    joined = pd.concat([pd.concat(row) for row in rows], axis=1, join="inner").to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        alike = np.corrcoef(joined.T)
    return np.array([[float(part.mean()) for part in row] for row in rows]), np.atleast_2d(alike)


def own_advantage(effects: np.ndarray) -> float:
    """Mean effect on the own set minus that on other sets, without differences between regions and between sets.

    Args:
        effects: (region's set, prompts' set).
    """
    centred = effects - effects.mean(axis=0) - effects.mean(axis=1, keepdims=True) + effects.mean()
    k = len(effects)
    return float(np.trace(centred) / k - (centred.sum() - np.trace(centred)) / (k * (k - 1)))


def own_p(effects: np.ndarray) -> float:
    """The share of all assignments of regions to sets whose |advantage| is at least that of the right one."""
    found = abs(own_advantage(effects))
    drawn = [abs(own_advantage(effects[list(order)])) for order in orders(len(effects))]
    return _share(found, drawn, len(effects))


def mantel(similarity: np.ndarray, other: np.ndarray) -> tuple[float, float] | None:
    """The correlation over pairs of two symmetric matrices, and its two-sided permutation p.

    Source: Mantel 1967, Cancer Research 27. None for fewer than four sets, or if a matrix is constant or has gaps.
    """
    k = len(similarity)
    upper = np.triu_indices(k, 1)
    if k < 4 or not (np.isfinite(similarity[upper]).all() and np.isfinite(other[upper]).all()):
        return None
    if not (np.ptp(similarity[upper]) and np.ptp(other[upper])):
        return None

    def correlation(order: Sequence[int]) -> float:
        moved = similarity[np.ix_(order, order)]
        return float(np.corrcoef(moved[upper], other[upper])[0, 1])

    found = correlation(range(k))
    return found, _share(abs(found), [abs(correlation(order)) for order in orders(k)], k)


def orders(k: int) -> list[tuple[int, ...]]:
    """All orders of k sets, or `DRAWS` random ones where there are more than that."""
    if factorial(k) <= DRAWS:
        return list(permutations(range(k)))
    rng = np.random.default_rng(0)
    return [tuple(rng.permutation(k).tolist()) for _ in range(DRAWS)]


def _share(found: float, drawn: Sequence[float], k: int) -> float:
    at_least = int(np.sum(np.array(drawn) >= found - 1e-12))
    return at_least / len(drawn) if factorial(k) <= DRAWS else (1 + at_least) / (1 + len(drawn))


def transfer_of_cell(
    named: Mapping[str, Effects], ious: Mapping[tuple[str, str], float | None]
) -> list[dict]:
    """One row per operation, dose and measure: the columns of `contracts.TRANSFER` after the cell's.

    Args:
        named: set -> the effects of its region; at least two sets.
        ious: (a, b) in sorted order -> IoU of their regions, None if there is none.
    """
    rows = []
    for label, effects, alike, pairwise in _matrices(named, ious):
        k, tested = len(named), mantel(pairwise, alike)
        rows.append(
            label
            | {
                "sets": k,
                "own": float(np.trace(effects) / k),
                "others": float((effects.sum() - np.trace(effects)) / (k * (k - 1))),
                "own_advantage": own_advantage(effects),
                "own_p": own_p(effects),
                "mantel": tested[0] if tested else None,
                "mantel_p": tested[1] if tested else None,
            }
        )
    return rows


def transfer_pairs(named: Mapping[str, Effects], ious: Mapping[tuple[str, str], float | None]) -> list[dict]:
    """One row per operation, dose, measure, region and set of prompts: `contracts.TRANSFER_PAIRS` after the cell's.

    Args:
        named, ious: as in `transfer_of_cell`.
    """
    return [
        label
        | {"region_of": a, "prompts_of": b, "effect": float(effects[i, j])}
        | {
            "iou": None if i == j else _known(pairwise[i, j]),
            "similarity": None if i == j else _known(alike[i, j]),
        }
        for label, effects, alike, pairwise in _matrices(named, ious)
        for i, a in enumerate(named)
        for j, b in enumerate(named)
    ]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _matrices(
    named: Mapping[str, Effects], ious: Mapping[tuple[str, str], float | None]
) -> Iterator[tuple[dict, np.ndarray, np.ndarray, np.ndarray]]:
    """For each operation, dose and measure: its labels, the two matrices of `effect_matrix`, and that of the IoUs."""
    names = list(named)
    pairwise = np.array([[ious.get(tuple(sorted((a, b)))) for b in names] for a in names], float)
    places = dict.fromkeys(place[:3] for effects in named.values() for place in effects.tested())
    for operation, dose, measure in places:
        found = effect_matrix(named, operation, dose, measure)
        if found is not None:
            yield {"operation": operation, "dose": dose, "measure": measure}, *found, pairwise
