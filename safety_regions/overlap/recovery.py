"""Recovery of a planted region: regions and scores of a method compared with the truth, weight by weight.

Truth and regions are compared as weights, so that one table can have methods of every granularity. A score that is
not stored counts as tied below all stored scores: areas under curves are exact if all scores are stored
(``kept: {matrix: 1}``) and coarser otherwise. Scores of a LoRA adapter's factors are not scores of single weights.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from safety_regions.formats.expand import Factors, expand_region, spread_units
from safety_regions.formats.region import Region
from safety_regions.formats.score_file import ScoreFile
from safety_regions.overlap.chance import densities
from safety_regions.units.addresses import LAYERS

Flags = dict[str, np.ndarray]


def weight_flags(
    region: Region, shapes: Mapping[str, tuple[int, int]], factors: Factors | None = None
) -> Flags:
    """Return a region as booleans (out, in) for every projection; see `expand_region`."""
    expanded = expand_region(region, shapes, factors)
    return {where: expanded.flags(where) for where in shapes}


def recovery_of_region(region: Flags, truth: Flags, scope: str) -> dict[str, float]:
    """Compute precision, recall and IoU of a region against the truth, with the IoU expected by chance.

    Args:
        scope: row, matrix, layer or global: the parts in which a random region has as many weights as this one.
    """
    selected, planted = (np.array([flags[where].sum() for where in truth]) for flags in (region, truth))
    units = np.array([flags.size for flags in truth.values()])
    both = sum(int((region[where] & truth[where]).sum()) for where in truth)
    n_truth, n_selected = int(planted.sum()), int(selected.sum())
    expected = float(densities(scope, list(truth), selected[None], units)[0] @ planted)
    return {
        "n_weights": int(units.sum()),
        "n_truth": n_truth,
        "n_selected": n_selected,
        "intersection": both,
        "precision": _ratio(both, n_selected),
        "recall": _ratio(both, n_truth),
        "iou": _ratio(both, n_truth + n_selected - both),
        "chance": _ratio(expected, n_truth + n_selected - expected),
        "prevalence": n_truth / int(units.sum()),
    }


def recovery_of_scores(path: str | Path, truth: Flags) -> dict[str, float | None]:
    """Compute the areas under curves of a score table against the truth; null for the scores of an adapter.

    Raises:
        StudyError: the table is damaged, or its units do not fit the truth's weights.
    """
    file = ScoreFile(path)
    if file.granularity.factors:
        return {"auroc": None, "auroc_within": None, "average_precision": None}
    scores = {where: _weight_scores(file, where, flags.shape).ravel() for where, flags in truth.items()}
    flags = {where: values.ravel() for where, values in truth.items()}
    divided = [where for where, values in flags.items() if 0 < values.sum() < values.size]
    within = [auroc(scores[where], flags[where]) for where in divided]
    everything = np.concatenate(list(scores.values())), np.concatenate(list(flags.values()))
    return {
        "auroc": auroc(*everything),
        "auroc_within": float(np.mean(within)) if within else None,
        "average_precision": average_precision(*everything),
    }


def auroc(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the probability that a unit of the truth outscores another unit; ties count half.

    None if there is no unit in the truth, or none outside it.
    """
    hits, misses = _by_score(scores, truth)
    if not (hits.sum() and misses.sum()):
        return None
    below = np.cumsum(misses) - misses
    return float(hits @ (below + misses / 2) / (hits.sum() * misses.sum()))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the mean precision over the steps of recall, with tied units in one step; None if the truth is empty."""
    hits, misses = (counts[::-1] for counts in _by_score(scores, truth))
    if not hits.sum():
        return None
    precision = np.cumsum(hits) / np.cumsum(hits + misses)
    return float(hits @ precision / hits.sum())


def _by_score(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the units inside and outside the truth at each distinct score, ascending."""
    values, place = np.unique(scores, return_inverse=True)
    hits = np.bincount(place[truth], minlength=values.size).astype(float)
    return hits, np.bincount(place, minlength=values.size) - hits


def _weight_scores(file: ScoreFile, where: str, shape: tuple[int, int]) -> np.ndarray:
    """Return the score of each weight of an address, -inf where none is stored."""
    home = LAYERS if file.granularity.whole_layers else where
    if home not in file.shapes:
        return np.full(shape, -np.inf)
    values = np.full(np.prod(file.shapes[home]), -np.inf)
    values[file.units(home)] = file.scores(home)
    return spread_units(values.reshape(file.shapes[home]), file.granularity, where, shape)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
