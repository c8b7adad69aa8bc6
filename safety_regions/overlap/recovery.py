"""Recovery of a planted region: regions and scores of a method compared with the truth, weight by weight.

Truth and regions are compared as weights, so that one table can have methods of every granularity. Weights that a
method does not score count as tied below all others. Only regions of ranks are no sets of weights: they are compared
with the directions of the change that was planted (`overlap.recovery_of_ranks`), and have no areas.

Areas under curves are those of all scores if all are stored (``kept: {matrix: 1}``), otherwise those of the fixed
sample of weights (`scoring.sample`), in which a weight counts for as many as its projection has for each sampled one.
The areas of all methods of a study are then from this sample.
Scores of a LoRA adapter's factors are not scores of single weights, and have no areas. Where neurons or layers were
planted, there are also areas of scores pooled to these units (`overlap.pooling`). A sample has few weights of a neuron,
so only layers are pooled from it.

The scores of one organism can be compared with the truths of several: what a method finds where nothing was planted is
the null for what it finds where something was.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from safety_regions.formats.expand import Factors, expand_region, spread_units
from safety_regions.formats.region import Region
from safety_regions.formats.score_file import ScoreFile
from safety_regions.formats.subspaces import Subspaces, read_any_region
from safety_regions.overlap.chance import densities, ratio_or_null
from safety_regions.overlap.curves import area_of_precision, area_of_roc, auroc, curve
from safety_regions.overlap.few_units import chance_of_truth
from safety_regions.overlap.pooling import POOLED, pooled_areas
from safety_regions.overlap.recovery_of_ranks import recovery_of_subspaces
from safety_regions.units.addresses import parse_address
from safety_regions.units.granularity import GRANULARITIES

AREAS = ("auroc", "average_precision", "chance_auroc", "chance_average_precision", "auroc_within", *POOLED)
Flags = dict[str, np.ndarray]
Labelled = Sequence[tuple[Mapping[str, str], str | Path]]


class Scores(NamedTuple):
    """Scores of weights.

    Attributes:
        values: address -> float64, -inf where the method gives none: of all weights, (out, in), or of a sample, (n,).
        sample: address -> flat indices of the sampled weights, (n,); None if all are there.
    """

    values: Flags
    sample: Flags | None = None


class Units(NamedTuple):
    """A region of heads or layers, and the region of the same kind that a refinement removed."""

    region: Region
    removed: Region | None = None


class Found(NamedTuple):
    """A region as weights, its scope, the weights that it could have had, and its units if a layer has few."""

    weights: Flags
    scope: str
    available: Flags
    units: Units | None


def measure_recovery(
    truths: Mapping[str, Region],
    scores: Labelled,
    regions: Labelled,
    removed: Labelled,
    factors: Factors | None = None,
    samples: Labelled = (),
    changes: Mapping[str, Subspaces] | None = None,
) -> list[dict]:
    """Compare all regions with each truth: a row each, ``truth`` and labels first, then `recovery_of_region`, areas.

    Args:
        truths: organism -> its planted region. The organisms have the same shapes; regions and scores are of one.
        scores, regions: (labels, file); the labels of both hold method and name.
        removed: the raw regions of utility sets that refinements subtracted, by method, selection and name.
        factors: address -> its LoRA factors, for a method that scores an adapter.
        samples: as ``scores``, for tables that do not store all scores of weights: those of the fixed sample.
        changes: organism -> the directions of its change, where there are regions of ranks.
    """
    shapes = {where: tuple(s) for where, s in ScoreFile(scores[0][1]).metadata["weight_shapes"].items()}
    subtracted = {(of["method"], of["selection"], f"minus-{of['name']}"): path for of, path in removed}
    planted = {name: weight_flags(truth, shapes) for name, truth in truths.items()}
    kinds = {name: truth.metadata["granularity"] for name, truth in truths.items()}
    sampled = {(of["method"], of["name"]): path for of, path in samples}
    sample = sampled_scores(samples[0][1]).sample if samples else None
    areas, counted = {}, {}
    # One table, then one region at a time: those of all weights may be large.
    for of, path in scores:
        key = of["method"], of["name"]
        values = sampled_scores(sampled[key]) if key in sampled else weight_scores(path, shapes)
        areas |= {(t, *key): areas_of_scores(values, flags, kinds[t], sample) for t, flags in planted.items()}
    for number, (of, path) in enumerate(regions):
        other = subtracted.get((of["method"], of["selection"], of["refinement"]))
        region, outside = read_any_region(path), read_any_region(other) if other else None
        if isinstance(region, Subspaces):
            counted |= {(t, number): recovery_of_subspaces(region, changes[t], outside) for t in truths}
            continue
        one = _found(region, outside, shapes, factors)
        counted |= {
            (t, number): recovery_of_region(one.weights, flags, *one[1:]) for t, flags in planted.items()
        }
    return [
        {"truth": t, **of, **counted[t, number], **areas[t, of["method"], of["name"]]}
        for t in truths
        for number, (of, _) in enumerate(regions)
    ]


def _found(
    region: Region, removed: Region | None, shapes: Mapping[str, tuple[int, int]], factors: Factors | None
) -> Found:
    every = {where: np.ones(shape, bool) for where, shape in region.shapes.items()}
    available = weight_flags(Region.pack(every, {**region.metadata, "fraction": 1.0}), shapes, factors)
    if removed:
        taken = weight_flags(removed, shapes, factors)
        available = {where: flags & ~taken[where] for where, flags in available.items()}
    return Found(
        weight_flags(region, shapes, factors),
        region.metadata["scope"],
        available,
        Units(region, removed) if GRANULARITIES[region.metadata["granularity"]].few else None,
    )


def weight_flags(
    region: Region, shapes: Mapping[str, tuple[int, int]], factors: Factors | None = None
) -> Flags:
    """Return a region as booleans (out, in) for every projection; see `expand_region`."""
    expanded = expand_region(region, shapes, factors)
    return {where: expanded.flags(where) for where in shapes}


def recovery_of_region(
    region: Flags, truth: Flags, scope: str, available: Flags | None = None, units: Units | None = None
) -> dict[str, float]:
    """Compute precision, recall and IoU of a region against the truth, with the IoU expected by chance.

    A random region has as many units as this one in each part (row, matrix, layer or all, as ``scope`` says), and none
    that the method does not score or the refinement removed. Weights and neurons are many, so chance is the ratio of
    the expected intersection and union; heads and layers are few, so chance is the mean IoU of random sets of them.

    Args:
        region, truth: address -> whether each weight (out, in) is part of it.
        available: the same for the weights that a random region may have; None for all.
        units: the region's units, if it consists of heads or layers.
    """
    sizes = np.array([flags.size for flags in truth.values()])
    free = available or {where: np.ones(flags.shape, bool) for where, flags in truth.items()}
    reach = {where: flags & free[where] for where, flags in truth.items()}
    selected, planted, possible, reachable = (
        np.array([flags[where].sum() for where in truth]) for flags in (region, truth, free, reach)
    )
    both = sum(int((region[where] & truth[where]).sum()) for where in truth)
    n_truth, n_selected = int(planted.sum()), int(selected.sum())
    if units is not None:
        chance = chance_of_truth(units.region, units.removed, truth)
    else:
        expected = float(densities(scope, list(truth), selected[None], possible)[0] @ reachable)
        chance = ratio_or_null(expected, n_truth + n_selected - expected)
    return {
        "n_weights": int(sizes.sum()),
        "n_truth": n_truth,
        "n_selected": n_selected,
        "intersection": both,
        "precision": ratio_or_null(both, n_selected),
        "recall": ratio_or_null(both, n_truth),
        "iou": ratio_or_null(both, n_truth + n_selected - both),
        "chance": chance,
        "prevalence": n_truth / int(sizes.sum()),
    }


def recovery_of_scores(
    path: str | Path, truth: Flags, granularity: str = "weight"
) -> dict[str, float | None]:
    """Compute `areas_of_scores` from a score table.

    Raises:
        StudyError: the table is damaged, or its units do not fit the truth's weights.
    """
    scores = weight_scores(path, {where: flags.shape for where, flags in truth.items()})
    return areas_of_scores(scores, truth, granularity)


def weight_scores(path: str | Path, shapes: Mapping[str, tuple[int, int]]) -> Scores | None:
    """Read the score of every weight. None for scores of an adapter or of ranks, and if not all scores are stored."""
    file = ScoreFile(path)
    if file.granularity.factors or file.granularity.subspaces or max(file.kept.values(), default=0) < 1:
        return None
    return Scores({where: _weight_scores(file, where, shapes) for where in shapes})


def sampled_scores(path: str | Path) -> Scores:
    """Read the scores of the fixed sample of weights from the table that holds them."""
    file = ScoreFile(path)
    values = {where: file.scores(where).astype(np.float64) for where in file.shapes}
    return Scores(values, {where: file.units(where) for where in file.shapes})


def areas_of_scores(
    scores: Scores | None, truth: Flags, granularity: str = "weight", sample: Flags | None = None
) -> dict[str, float | None]:
    """Compute the areas under curves of scores against the truth, and what the same scores give by chance.

    By chance (``chance_auroc``, ``chance_average_precision``) means: with the scores permuted within each projection.
    A method whose scores are large in some layers, or that does not score some projections, has an AUROC other than 0.5
    for any truth that lies more in some projections than in others. This null takes that away.

    Areas with ``pooled_`` are those of whole neurons or layers, if these were planted; see `pooled_areas`.

    Args:
        scores: from `weight_scores` or `sampled_scores`.
        truth: address -> whether each weight (out, in) is planted.
        granularity: of the plant: weight, neuron or layer.
        sample: address -> flat indices of the weights that areas are computed from, but pooled ones; None for all.

    Returns:
        The keys `AREAS`. All are null without scores. Those by chance are null if the truth consists of whole layers:
        within a projection there is nothing to permute, and layers are too few.
    """
    if scores is None:
        return dict.fromkeys(AREAS)
    pooled = _pooled(scores, truth, granularity)
    if sample is not None and scores.sample is None:
        scores = Scores({w: values.ravel()[sample[w]] for w, values in scores.values.items()}, sample)
    known = {where: scores.values[where].ravel() for where in truth}
    flags = {where: _taken(values.ravel(), scores.sample, where) for where, values in truth.items()}
    shares = {where: values.mean() for where, values in truth.items()}
    within = [auroc(known[w], flags[w]) for w in truth if 0 < shares[w] < 1 and 0 < flags[w].mean() < 1]
    everything, planted = (np.concatenate(list(values.values())) for values in (known, flags))
    values, place = np.unique(everything, return_inverse=True)
    sizes = [flags[where].size for where in truth]
    expected = np.repeat(list(shares.values()), sizes)
    stands_for = [truth[where].size / n for where, n in zip(truth, sizes, strict=True)]
    counts = None if scores.sample is None else np.repeat(stands_for, sizes)
    found = [
        area(curve(place, values.size, part, counts))
        for part in (planted, expected)
        for area in (area_of_roc, area_of_precision)
    ]
    if _whole_layers(shares):
        found[2:] = None, None
    mean_within = float(np.mean(within)) if within else None
    return dict(zip(AREAS, (*found, mean_within, *pooled.values()), strict=True))


def _taken(values: np.ndarray, sample: Flags | None, where: str) -> np.ndarray:
    return values if sample is None else values[sample[where]]


def _pooled(scores: Scores, truth: Flags, granularity: str) -> dict[str, float | None]:
    """`pooled_areas`; from a sample only those of layers, whose mean is that of the means of their projections."""
    if scores.sample is None:
        return pooled_areas(scores.values, truth, granularity)
    if granularity != "layer":
        return dict.fromkeys(POOLED)
    means = {
        where: np.broadcast_to(scores.values[where].mean(), flags.shape) for where, flags in truth.items()
    }
    return pooled_areas(means, truth, granularity)


def _whole_layers(shares: Mapping[str, float]) -> bool:
    """Whether the truth takes all or nothing of every layer."""
    layers: dict[int | None, set[float]] = {}
    for where, share in shares.items():
        layers.setdefault(parse_address(where).layer, set()).add(share)
    return all(found in ({0.0}, {1.0}) for found in layers.values())


def _weight_scores(file: ScoreFile, where: str, shapes: Mapping[str, tuple[int, int]]) -> np.ndarray:
    """Return the score of each weight of an address, -inf where none is stored; see `spread_units`."""
    home = file.granularity.home(where)
    if home not in file.shapes:
        return np.full(shapes[where], -np.inf)
    values = np.full(np.prod(file.shapes[home]), -np.inf)
    values[file.units(home)] = file.scores(home)
    return spread_units(values.reshape(file.shapes[home]), file.granularity, where, shapes)
