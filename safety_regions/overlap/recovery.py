"""Recovery of a planted region: regions and scores of a method compared with the truth, weight by weight.

Truth and regions are compared as weights, so that one table can have methods of every granularity. A score that is
not stored counts as tied below all stored scores: areas under curves are exact if all scores are stored
(``kept: {matrix: 1}``) and coarser otherwise. Scores of a LoRA adapter's factors are not scores of single weights.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np

from safety_regions.formats.expand import Factors, expand_region, spread_units
from safety_regions.formats.region import Region, read_region
from safety_regions.formats.score_file import ScoreFile
from safety_regions.overlap.chance import DRAWS, densities
from safety_regions.units.addresses import LAYERS, parse_address
from safety_regions.units.granularity import GRANULARITIES

Flags = dict[str, np.ndarray]
Labelled = Sequence[tuple[Mapping[str, str], str | Path]]


def measure_recovery(
    truth: Region, scores: Labelled, regions: Labelled, removed: Labelled, factors: Factors | None = None
) -> list[dict]:
    """Compare all regions with the truth: one row each, labels first, then `recovery_of_region` and the areas.

    Args:
        truth: the planted region, over the weights of all projections.
        scores, regions: (labels, file); the labels of both hold method and name.
        removed: the raw regions of utility sets that refinements subtracted, by method, selection and name.
        factors: address -> its LoRA factors, for a method that scores an adapter.
    """
    shapes = {where: tuple(s) for where, s in ScoreFile(scores[0][1]).metadata["weight_shapes"].items()}
    planted = weight_flags(truth, shapes)
    areas = {(of["method"], of["name"]): recovery_of_scores(path, planted) for of, path in scores}
    subtracted = {(of["method"], of["selection"], f"minus-{of['name']}"): path for of, path in removed}
    rows = []
    for of, path in regions:
        region, other = read_region(path), subtracted.get((of["method"], of["selection"], of["refinement"]))
        found = recovery_of_region(
            weight_flags(region, shapes, factors),
            planted,
            region.metadata["scope"],
            weight_flags(read_region(other), shapes, factors) if other else None,
            GRANULARITIES[region.metadata["granularity"]].whole_layers,
        )
        rows.append({**of, **found, **areas[of["method"], of["name"]]})
    return rows


def weight_flags(
    region: Region, shapes: Mapping[str, tuple[int, int]], factors: Factors | None = None
) -> Flags:
    """Return a region as booleans (out, in) for every projection; see `expand_region`."""
    expanded = expand_region(region, shapes, factors)
    return {where: expanded.flags(where) for where in shapes}


def recovery_of_region(
    region: Flags, truth: Flags, scope: str, removed: Flags | None = None, whole_layers: bool = False
) -> dict[str, float]:
    """Compute precision, recall and IoU of a region against the truth, with the IoU expected by chance.

    A random region has as many units as this one in each part (row, matrix, layer or all, as ``scope`` says), and none
    of those that the refinement removed. Weights and neurons are many, so chance is the ratio of the expected
    intersection and union; random sets of whole layers are few, so chance is their mean IoU.

    Args:
        region, truth: address -> whether each weight (out, in) is part of it.
        removed: the same for the region that a refinement subtracted; None for a raw region.
        whole_layers: whether the region consists of layers.
    """
    units = np.array([flags.size for flags in truth.values()])
    free = {
        where: ~removed[where] if removed else np.ones(flags.shape, bool) for where, flags in truth.items()
    }
    selected, planted = (np.array([flags[where].sum() for where in truth]) for flags in (region, truth))
    available, reachable = (
        np.array([(flags & free[where]).sum() for where, flags in given.items()]) for given in (free, truth)
    )
    both = sum(int((region[where] & truth[where]).sum()) for where in truth)
    n_truth, n_selected = int(planted.sum()), int(selected.sum())
    if whole_layers:
        chance = _chance_of_layers(list(truth), selected, reachable, available, n_truth)
    else:
        expected = float(densities(scope, list(truth), selected[None], available)[0] @ reachable)
        chance = _ratio(expected, n_truth + n_selected - expected)
    return {
        "n_weights": int(units.sum()),
        "n_truth": n_truth,
        "n_selected": n_selected,
        "intersection": both,
        "precision": _ratio(both, n_selected),
        "recall": _ratio(both, n_truth),
        "iou": _ratio(both, n_truth + n_selected - both),
        "chance": chance,
        "prevalence": n_truth / int(units.sum()),
    }


def _chance_of_layers(
    addresses: list[str], selected: np.ndarray, reachable: np.ndarray, available: np.ndarray, n_truth: int
) -> float | None:
    """Return the mean IoU with the truth of as many random layers as are selected; weights per address are given."""
    layer = np.unique([parse_address(where).layer for where in addresses], return_inverse=True)[1]
    chosen, planted, weights = (np.bincount(layer, weights=w) for w in (selected, reachable, available))
    free, n = np.flatnonzero(weights), int((chosen > 0).sum())
    if comb(len(free), n) <= DRAWS:
        drawn = np.array(list(combinations(free, n)), int)
    else:
        drawn = free[np.random.default_rng(0).random((DRAWS, len(free))).argsort(axis=1)[:, :n]]
    both = planted[drawn].sum(axis=1)
    union = n_truth + weights[drawn].sum(axis=1) - both
    return float((both / union).mean()) if union.all() else None


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
