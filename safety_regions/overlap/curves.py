"""Areas under curves: how well scores rank the units of a truth above all others."""

from typing import NamedTuple

import numpy as np


def auroc(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the probability that a unit of the truth outscores another unit; ties count half.

    None if there is no unit in the truth, or none outside it.
    """
    values, place = np.unique(scores, return_inverse=True)
    return area_of_roc(curve(place, values.size, truth))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the mean precision over the steps of recall, with tied units in one step; None if the truth is empty."""
    values, place = np.unique(scores, return_inverse=True)
    return area_of_precision(curve(place, values.size, truth))


class Curve(NamedTuple):
    """Units inside and outside the truth at each distinct score, ascending; units can count in part."""

    hits: np.ndarray
    misses: np.ndarray


def curve(place: np.ndarray, n: int, inside: np.ndarray, counts: np.ndarray | None = None) -> Curve:
    """Count units at each of n distinct scores.

    Args:
        place: rank of each unit's score among the distinct ones, ascending, 0 to n - 1.
        inside: how much of each unit is in the truth, 0-1.
        counts: how many units each one stands for, in a sample; None: one.
    """
    hits = np.bincount(place, weights=inside if counts is None else inside * counts, minlength=n)
    return Curve(hits, np.bincount(place, weights=counts, minlength=n) - hits)


def area_of_roc(counts: Curve) -> float | None:
    """The AUROC; see `auroc`."""
    hits, misses = counts
    if not (hits.sum() and misses.sum()):
        return None
    below = np.cumsum(misses) - misses
    return float(hits @ (below + misses / 2) / (hits.sum() * misses.sum()))


def area_of_precision(counts: Curve) -> float | None:
    """The average precision; see `average_precision`."""
    hits, misses = (part[::-1] for part in counts)
    if not hits.sum():
        return None
    precision = np.cumsum(hits) / np.maximum(np.cumsum(hits + misses), 1)
    return float(hits @ precision / hits.sum())
