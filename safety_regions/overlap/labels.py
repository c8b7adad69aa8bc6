"""Label permutation: do the regions of two sets differ more than those of two random parts of their pooled prompts?

The test is exact (Fisher 1935): if it does not matter from which of two sets a prompt comes, the IoU of the sets is as
likely to have any rank among the IoUs of random splits as any other. With m splits, the p-value is the fraction of the
m + 1 IoUs, the observed one among them, that are at most the observed one; it is at least 1 / (m + 1).
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from safety_regions.formats.columns import column, numbers
from safety_regions.formats.subspaces import AnyRegion, read_any_region
from safety_regions.overlap.iou import JOIN, compute_overlap
from safety_regions.overlap.subspaces import count_in_memory
from safety_regions.regions.refine import subtract_region
from safety_regions.regions.select import select_region
from safety_regions.units.names import Name, parse_name
from safety_regions.units.selections import parse_selection

if TYPE_CHECKING:
    from safety_regions.scoring.job import ScoringJob
    from safety_regions.scoring.samples import Chosen

Cell = Mapping[str, str]


def permute_labels(
    scoring: "ScoringJob",
    pool: Name,
    sets: tuple["Chosen", "Chosen"],
    permutations: int,
    cells: Sequence[Cell],
    removed: Mapping[str, str | Path],
    allow_empty: bool,
) -> list[dict]:
    """Score random splits of the pooled prompts of two sets, and compare the regions of the parts in every cell.

    Args:
        scoring: writes score tables; they are temporary files in its scratch folder.
        pool: the pool of the two names.
        sets: the chosen prompts of both.
        permutations: number of splits.
        cells: selection and refinement of each.
        removed: selection/refinement -> the raw region that the refinement subtracts, for refinements other than raw.
        allow_empty: as in `select_region`.

    Returns:
        Rows of `contracts.LABELS`.
    """
    rows = []
    for number in range(1, permutations + 1):
        with TemporaryDirectory(dir=scoring.settings.scratch) as folder:
            paths = [Path(folder) / f"{part}.parquet" for part in "ab"]
            for path, part in zip(paths, split_pool(*sets, f"{pool} {number}"), strict=True):
                scoring.write([path], [path.with_suffix(".sample")], [pool], part)
            rows += [
                {"permutation": number, **row} for row in compare_parts(paths, cells, removed, allow_empty)
            ]
    return rows


def split_pool(a: "Chosen", b: "Chosen", seed: str) -> tuple["Chosen", "Chosen"]:
    """Split the rows of two names at random into two parts of the same sizes."""
    pooled = [*a.rows, *b.rows]
    random.Random(seed).shuffle(pooled)
    first, second = pooled[: len(a.rows)], pooled[len(a.rows) :]
    return a._replace(rows=first, counts=(len(first),)), b._replace(rows=second, counts=(len(second),))


def compare_parts(
    scores: Sequence[str | Path], cells: Sequence[Cell], removed: Mapping[str, str | Path], allow_empty: bool
) -> list[dict]:
    """The IoU of the regions of two score tables in every cell, as ``iou``; null if both regions are empty."""
    raw = {
        selection: [
            select_region(path, *parse_selection(selection), allow_empty=allow_empty) for path in scores
        ]
        for selection in {cell["selection"] for cell in cells}
    }
    return [{**cell, "iou": _iou(_refined(raw[cell["selection"]], cell, removed))} for cell in cells]


def _refined(regions: Sequence[AnyRegion], cell: Cell, removed: Mapping[str, str | Path]) -> list[AnyRegion]:
    path = removed.get(f"{cell['selection']}/{cell['refinement']}")
    return [subtract_region(region, read_any_region(path)) for region in regions] if path else list(regions)


def _iou(regions: Sequence[AnyRegion]) -> float | None:
    overlap = compute_overlap(count_in_memory(dict(zip("ab", regions, strict=True))))
    rows = zip(overlap["level"].to_pylist(), overlap["iou"].to_pylist(), strict=True)
    return next(iou for level, iou in rows if level == "model")


def permutation_test(observed: float, drawn: Sequence[float]) -> tuple[float, float]:
    """Return the mean of the splits' IoUs, and the one-sided p-value of an observed IoU: small if it is below theirs.

    NaN for both if the observed IoU or all splits are undefined; undefined splits are left out.
    """
    known = np.array([value for value in drawn if not np.isnan(value)])
    if np.isnan(observed) or not known.size:
        return np.nan, np.nan
    return float(known.mean()), (1 + np.count_nonzero(known <= observed)) / (1 + known.size)


def add_permutations(overlap: pa.Table, labels: Mapping[str, pa.Table], cell: Cell) -> pa.Table:
    """Fill in ``permuted_iou`` and ``permuted_p`` of an `OVERLAP` table, for the pairs that were split at random.

    Args:
        labels: pool of two sets -> its `LABELS` table.
        cell: selection and refinement of the table.
    """
    drawn = {JOIN.join(parse_name(pool).datasets): read_ious(table, cell) for pool, table in labels.items()}
    found = np.full((overlap.num_rows, 2), np.nan)
    observed = numbers(overlap, "iou", null=np.nan)
    rows = zip(overlap["combination"].to_pylist(), overlap["level"].to_pylist(), strict=True)
    for row, (combination, level) in enumerate(rows):
        if level == "model" and combination in drawn:
            found[row] = permutation_test(observed[row], drawn[combination])
    for name, values in zip(("permuted_iou", "permuted_p"), found.T, strict=True):
        place = overlap.schema.get_field_index(name)
        values = column(values, missing=np.isnan(values))
        overlap = overlap.set_column(place, overlap.schema.field(name), values)
    return overlap


def read_ious(table: pa.Table, cell: Cell) -> list[float]:
    """The IoUs of the splits in one cell of a `LABELS` table; NaN where undefined."""
    found = [
        row["iou"]
        for row in table.to_pylist()
        if all(row[key] == cell[key] for key in ("selection", "refinement"))
    ]
    return [np.nan if value is None else value for value in found]
