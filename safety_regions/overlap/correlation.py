"""Correlation of the log scores of two sets, corrected for the noise of a finite number of prompts, of pairs of sets.

The IoU of the best units depends on the number of prompts even after it is normalised. The disattenuated correlation
(Spearman 1904, American Journal of Psychology 15, 72-101) does not: with halves a.1, a.2 of set a and b.1, b.2 of b,

    correlation    = mean of r(a.1, b.1) and r(a.2, b.2)
    reliability    = sqrt(r(a.1, a.2) r(b.1, b.2))
    disattenuated  = correlation / reliability

where r is the Pearson correlation of log scores over a fixed sample of units (`safety_regions.scoring.sample`). If
noise adds to the log scores and is independent between halves, it lowers both by the same factor. Scores are centred
within the scope in which units are ranked, since a factor on all of them changes no region. A sampled unit counts for
as many units as its address has for each sampled one.

    disattenuated_floor = mean of r(a.1~1, b.1~1), r(a.1~2, b.1~2), ... / reliability

is the same with shuffled statistics: the correlation that shared weights alone give. Where the log score is the sum of
a log weight and a log statistic that are independent of each other, the statistics themselves correlate by
(disattenuated - disattenuated_floor) / (1 - disattenuated_floor).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from safety_regions.errors import StudyError, explain
from safety_regions.formats.files import REMEDY
from safety_regions.formats.region_file import RegionFile
from safety_regions.formats.score_file import ScoreFile
from safety_regions.overlap.iou import JOIN
from safety_regions.units.addresses import STRATA
from safety_regions.units.granularity import ROW

LEAST = 0.1
"""Correlation of a set's own halves below which nothing is corrected: the errors of the correlations, about 0.01, would
be multiplied by up to 10. A sample of few units needs more: 3 standard errors, which are about 1 / sqrt(units)."""

CONSTANT = 1e-6
"""Standard deviation of log scores below which they are constant: float32 scores are no more precise."""

COLUMNS = ("correlation", "reliability", "disattenuated", "disattenuated_floor")
Paths = Mapping[str, str | Path]


class Units(NamedTuple):
    """The units of a sample that are correlated, at all addresses one after the other.

    Attributes:
        at: address -> flat indices of its sampled units.
        left: which of all sampled units are correlated: those that a refinement did not remove; bool (sampled,).
        group: number of the group of units that each is ranked in, 0-based; int (units,).
        weight: how many units of the backbone each stands for; float64 (units,).
    """

    at: dict[str, np.ndarray]
    left: np.ndarray
    group: np.ndarray
    weight: np.ndarray


def correlations(
    overlap: pa.Table, samples: Paths, scope: str, removed: str | Path | None = None
) -> dict[str, np.ndarray]:
    """Return the columns `COLUMNS` of an overlap table: float64 (rows,), NaN except for pairs over the whole model.

    A unit whose score is not above 0 for one of the names of a pair has no logarithm and is left out of that pair. NaN
    if that leaves less than half of the units, if scores are constant, and, for the corrected correlations, if a set's
    own halves correlate by less than `LEAST`.

    Args:
        overlap: an `OVERLAP` table.
        samples: name -> sample of its scores: the halves of every set of a pair and, for the floor, shuffles of the
            first halves.
        scope: the scope in which units are ranked.
        removed: the region of a utility set whose units are left out, as the refinement removed them.

    Raises:
        StudyError: a file is damaged, or the samples of two names are not of the same units.
    """
    columns = {name: np.full(overlap.num_rows, np.nan) for name in COLUMNS}
    divisor = np.full(overlap.num_rows, np.nan)
    units = read_units(next(iter(samples.values())), scope, removed)
    halves = {name: read_logs(path, units) for name, path in samples.items() if "~" not in name}
    rows, least = _model_pairs(overlap), max(LEAST, 3 / np.sqrt(max(units.weight.size, 1)))
    for row, (a, b) in rows.items():
        four = _correlate([halves[name] for name in (f"{a}.1", f"{a}.2", f"{b}.1", f"{b}.2")], units)
        within = four[0, 1], four[2, 3]
        columns["correlation"][row] = (four[0, 2] + four[1, 3]) / 2
        columns["reliability"][row] = np.sqrt(np.prod(within)) if min(within) > 0 else np.nan
        divisor[row] = columns["reliability"][row] if min(within) >= least else np.nan
    columns["disattenuated"] = columns["correlation"] / divisor
    columns["disattenuated_floor"] = _shuffled(rows, samples, units, overlap.num_rows) / divisor
    return columns


def _model_pairs(overlap: pa.Table) -> dict[int, list[str]]:
    """Row -> its two sets, of every pair over the whole model."""
    columns = (overlap[name].to_pylist() for name in ("level", "k", "combination"))
    return {
        row: combination.split(JOIN)
        for row, (level, k, combination) in enumerate(zip(*columns, strict=True))
        if level == "model" and k == 2
    }


def _shuffled(rows: Mapping[int, Sequence[str]], samples: Paths, units: Units, n_rows: int) -> np.ndarray:
    """The mean correlation of shuffled first halves, (rows,); the scores of one shuffle are in memory at a time."""
    shuffles = list(dict.fromkeys(name.partition("~")[2] for name in samples if "~" in name))
    drawn = np.full((len(shuffles), n_rows), np.nan)
    for found, shuffle in zip(drawn, shuffles, strict=True):
        names = sorted({name for pair in rows.values() for name in pair})
        logs = {name: read_logs(samples[f"{name}.1~{shuffle}"], units) for name in names}
        for row, (a, b) in rows.items():
            found[row] = _correlate([logs[a], logs[b]], units)[0, 1]
    return drawn.mean(axis=0) if shuffles else np.full(n_rows, np.nan)


def read_units(path: str | Path, scope: str, removed: str | Path | None = None) -> Units:
    """Read which units a sample has, and how they are ranked; see `Units` and `correlations`."""
    file, first = ScoreFile(path), {}
    at = {where: file.units(where) for where in file.shapes}
    region = RegionFile(removed) if removed else None
    left, group, weight, n_groups = [], [], [], 0
    for where, units in at.items():
        shape = file.shapes[where]
        row = units // shape[-1] if scope == ROW else np.zeros_like(units)
        group.append(first.setdefault(STRATA[scope](where), n_groups) + row)
        n_groups += shape[0]
        weight.append(np.full(units.size, np.prod(shape, dtype=float) / max(units.size, 1)))
        left.append(~_inside(region, where, units) if region else np.ones(units.size, bool))
    kept = np.concatenate(left)
    _, groups = np.unique(np.concatenate(group)[kept], return_inverse=True)
    return Units(at, kept, groups, np.concatenate(weight)[kept])


def _inside(region: RegionFile, where: str, units: np.ndarray) -> np.ndarray:
    """Whether each unit of an address is in a region."""
    return (region.mask(where)[units >> 3] >> (7 - (units & 7)) & 1).astype(bool)


def read_logs(path: str | Path, units: Units) -> np.ndarray:
    """Read the log scores of the correlated units: float32 (units,), NaN where a score is not above 0.

    Raises:
        StudyError: the file is damaged, or its sample is not of these units.
    """
    file = ScoreFile(path)
    if file.shapes.keys() != units.at.keys() or not all(
        np.array_equal(file.units(where), at) for where, at in units.at.items()
    ):
        raise StudyError(
            explain(path, "a sample of other units", "the same units as for the other names", REMEDY)
        )
    scores = np.concatenate([file.scores(where) for where in units.at])[units.left]
    return np.log(scores, out=np.full(scores.shape, np.nan, np.float32), where=scores > 0)


def _correlate(logs: Sequence[np.ndarray], units: Units) -> np.ndarray:
    """Pearson correlations of the names' log scores, (names, names), over the units that all of them know."""
    values = np.stack(logs)
    known = np.isfinite(values).all(axis=0)
    if 2 * np.count_nonzero(known) < known.size or not known.any():
        return np.full((len(logs), len(logs)), np.nan)
    values, group, weight = values[:, known].astype(float), units.group[known], units.weight[known]
    total = np.bincount(group, weight)
    sums = np.stack([np.bincount(group, weight * row) for row in values])
    values -= (sums / np.where(total > 0, total, 1))[:, group]
    products = (values * weight) @ values.T / weight.sum()
    spread = np.sqrt(np.diag(products))
    norm = np.outer(spread, spread)
    return np.divide(products, norm, out=np.full(norm.shape, np.nan), where=norm > CONSTANT**2)
