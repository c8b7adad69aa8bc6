"""Recovery of a planted region: regions and scores of a method compared with the truth, weight by weight.

Truth and regions are compared as weights, so that one table can have methods of every granularity. Weights that a
method does not score count as tied below all others. Areas under curves need all scores (``kept: {matrix: 1}``); scores
of a LoRA adapter's factors are not scores of single weights, and have none.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from pathlib import Path
from typing import NamedTuple

import numpy as np

from safety_regions.formats.expand import Factors, expand_region, spread_units
from safety_regions.formats.region import Region, read_region
from safety_regions.formats.score_file import ScoreFile
from safety_regions.overlap.chance import DRAWS, densities
from safety_regions.units.addresses import LAYERS, parse_address
from safety_regions.units.granularity import GRANULARITIES

AREAS = ("auroc", "average_precision", "chance_auroc", "chance_average_precision", "auroc_within")
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
    """Compute the areas under curves of a score table against the truth, and what the same scores give by chance.

    By chance (``chance_auroc``, ``chance_average_precision``) means: with the scores permuted within each projection.
    A method whose scores are large in some layers, or that does not score some projections, has an AUROC other than 0.5
    for any truth that lies more in some projections than in others. This null takes that away.

    Returns:
        The keys `AREAS`. All are null for the scores of an adapter, and if not all scores are stored. Those by chance
        are null if the truth consists of whole layers, since within a projection there is nothing to permute.

    Raises:
        StudyError: the table is damaged, or its units do not fit the truth's weights.
    """
    file = ScoreFile(path)
    if file.granularity.factors or max(file.kept.values(), default=0) < 1:
        return dict.fromkeys(AREAS)
    scores = {where: _weight_scores(file, where, flags.shape).ravel() for where, flags in truth.items()}
    flags = {where: values.ravel() for where, values in truth.items()}
    shares = {where: values.mean() for where, values in flags.items()}
    divided = [where for where, share in shares.items() if 0 < share < 1]
    within = [auroc(scores[where], flags[where]) for where in divided]
    everything, planted = (np.concatenate(list(values.values())) for values in (scores, flags))
    values, place = np.unique(everything, return_inverse=True)
    expected = np.concatenate([np.full(flags[where].size, share) for where, share in shares.items()])
    found = [
        area(_curve(place, values.size, part))
        for part in (planted, expected)
        for area in (_auroc, _precision)
    ]
    if _whole_layers(shares):
        found[2:] = None, None
    return dict(zip(AREAS, (*found, float(np.mean(within)) if within else None), strict=True))


def _whole_layers(shares: Mapping[str, float]) -> bool:
    """Whether the truth takes all or nothing of every layer."""
    layers: dict[int | None, set[float]] = {}
    for where, share in shares.items():
        layers.setdefault(parse_address(where).layer, set()).add(share)
    return all(found in ({0.0}, {1.0}) for found in layers.values())


def auroc(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the probability that a unit of the truth outscores another unit; ties count half.

    None if there is no unit in the truth, or none outside it.
    """
    values, place = np.unique(scores, return_inverse=True)
    return _auroc(_curve(place, values.size, truth))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the mean precision over the steps of recall, with tied units in one step; None if the truth is empty."""
    values, place = np.unique(scores, return_inverse=True)
    return _precision(_curve(place, values.size, truth))


class Curve(NamedTuple):
    """Units inside and outside the truth at each distinct score, ascending; units can count in part."""

    hits: np.ndarray
    misses: np.ndarray


def _curve(place: np.ndarray, n: int, inside: np.ndarray) -> Curve:
    hits = np.bincount(place, weights=inside, minlength=n)
    return Curve(hits, np.bincount(place, minlength=n) - hits)


def _auroc(curve: Curve) -> float | None:
    hits, misses = curve
    if not (hits.sum() and misses.sum()):
        return None
    below = np.cumsum(misses) - misses
    return float(hits @ (below + misses / 2) / (hits.sum() * misses.sum()))


def _precision(curve: Curve) -> float | None:
    hits, misses = (counts[::-1] for counts in curve)
    if not hits.sum():
        return None
    precision = np.cumsum(hits) / np.maximum(np.cumsum(hits + misses), 1)
    return float(hits @ precision / hits.sum())


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
