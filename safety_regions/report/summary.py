"""The first page: what was studied, how large the regions are and how much they overlap."""

from collections.abc import Mapping, Sequence

import pandas as pd
import pyarrow as pa

from safety_regions.report import pages
from safety_regions.report.combinations import REFERENCES, by_count, check_pairs, model_rows
from safety_regions.report.sizes import sizes_by_address, total_percent

CELL = ["backbone", "method", "selection", "refinement"]
MEASURED = ["subsets", "undefined", "median", "min", "max", *REFERENCES]
SEPARATOR = "/"
READING = (
    "IoU is the number of units in both of two regions over the number in either: 1 for the same region, 0 for no "
    "unit in common. Chance is the IoU expected of independent regions of the same sizes; after a "
    "refinement they are drawn from the units that the utility region leaves. Read every IoU against it: near chance, "
    "two sets found unrelated regions; well above it, they share units, which may carry safety or may score high for "
    "any prompt. Refinements take the utility set's region away: what falls with them was shared with ordinary "
    "prompts."
)
CAPTION = (
    "Whole model. Size: mean over sets. IoU: over the pairs where it is defined. The rest: means over pairs."
)
MORE = {
    "floor": "Floor is the IoU that remains when the evidence is shuffled and only the weights are shared.",
    "ceiling": "Ceiling is the IoU of regions found with two halves of the same set.",
}


def summarize(iou: pa.Table, sizes: pa.Table, names: Sequence[str]) -> pd.DataFrame:
    """One row per cell of the grid, in the order of ``sizes``.

    Args:
        iou: the gathered overlaps (`tables.IOU`).
        sizes: the gathered region sizes (`tables.REGION_SIZES`).
        names: the identification sets.

    Returns:
        Columns of `CELL`, ``percent`` (region size in % of all units, mean over sets), then of the pairwise IoU
        of the whole model what `combinations.by_count` says of k = 2: `MEASURED`.

    Raises:
        StudyError: a cell lacks a set or a pair of sets.
    """
    regions, overlaps = _by_cell(sizes), _by_cell(iou)
    rows = model_rows(((cell, overlaps.get(cell, iou.slice(0, 0))) for cell in regions), names)
    check_pairs(rows, names)
    measured = by_count(rows[rows["k"] == 2]).astype({"refinement": str}).set_index("refinement")
    sized = sizes_by_address(regions.items(), names).groupby("refinement", observed=True)
    frame = pd.DataFrame([cell.split(SEPARATOR) for cell in regions], columns=CELL, index=list(regions))
    frame["percent"] = pd.Series({cell: total_percent(one) for cell, one in sized})
    frame = frame.join(measured[MEASURED])
    return frame.fillna({"subsets": 0, "undefined": 0}).astype({"subsets": int, "undefined": int})


def _by_cell(table: pa.Table) -> dict[str, pa.Table]:
    """The rows of each cell, cells in order of appearance, labelled ``backbone/method/selection/refinement``."""
    groups = table.select(CELL).to_pandas().groupby(CELL, observed=True, sort=False).indices
    return {SEPARATOR.join(cell): table.take(pa.array(index)) for cell, index in groups.items()}


def summary_page(summary: pd.DataFrame, facts: Mapping[str, Sequence[str]], files: Mapping[str, str]) -> str:
    """The table of `summarize` as a page.

    Args:
        facts: what was studied, term -> values.
        files: where to find more, path -> what it holds.
    """
    shown = [name for name in REFERENCES if summary[name].notna().any()]
    header = [*CELL, "region size, %", "pairs", "IoU, median", "IoU, range", *shown]
    rows = [_row(record, shown) for record in summary.to_dict("records")]
    return pages.page(
        "Safety regions: summary",
        pages.heading("What was studied"),
        pages.facts(facts),
        pages.heading("How large the regions are, how much they overlap"),
        pages.paragraph(" ".join([READING, *(MORE[name] for name in shown if name in MORE)])),
        pages.table(header, rows, numbers=header[len(CELL) :], caption=CAPTION),
        pages.heading("Files"),
        pages.table(["file", "holds"], files.items()),
    )


def _row(record: Mapping, shown: Sequence[str]) -> list[str]:
    pairs = f"{record['subsets'] - record['undefined']} of {record['subsets']}"
    numbers = [f"{record['percent']:.2f}", pairs, _number(record["median"]), _range(record)]
    return [*(record[name] for name in CELL), *numbers, *(_number(record[name]) for name in shown)]


def _number(value: float) -> str:
    return "undefined" if pd.isna(value) else f"{value:.3f}"


def _range(record: Mapping[str, float]) -> str:
    return "" if pd.isna(record["min"]) else f"{record['min']:.3f}-{record['max']:.3f}"
