"""The table of numbers: a row for each cell, a column for each value of the verdict table, with an explanation."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd

from safety_regions.report.behaviour import CELL
from safety_regions.report.verdict.sentences import SETS, finding_of


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        header: its name.
        needs: the column of `verdict.measure` that must have a number in some row for this one to be shown.
        text: the text of a cell, from a row.
        first: whether it is shown at once, and not only with all columns.
    """

    header: str
    needs: str
    text: Callable[[Mapping], str]
    first: bool = False


class Row(NamedTuple):
    """Backbone, method, selection and refinement; what is found, in a few words and as a verdict; texts of columns."""

    cell: list[str]
    finding: str
    verdict: str
    texts: list[str]


def _number(column: str) -> Callable[[Mapping], str]:
    """The number, with ± its standard error if the table has one."""
    return lambda r: said(r[column], r.get(f"{column}_se"))


def said(value: float, error: float | None = None) -> str:
    """A number, and ± its standard error if that is known."""
    if pd.isna(value):
        return "–"
    return f"{value:.3f}" if pd.isna(error) else f"{value:.3f} ± {error:.3f}"


def _range(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"{low:.3f}-{high:.3f}"


def prompts(r: Mapping) -> str:
    """The number of prompts per set, or the fewest and the most."""
    if pd.isna(r["n_smallest"]):
        return ""
    few, many = f"{r['n_smallest']:.0f}", f"{r['n_largest']:.0f}"
    return few if few == many else f"{few}-{many}"


def _blocks(r: Mapping) -> str:
    of = "" if pd.isna(r["block_n"]) else f" (n {r['block_n']:.0f})"
    return f"{said(r['block_iou'], r['block_iou_se'])}{of}"


COLUMNS = (
    Column("IoU, median", "pairs", _number("iou"), first=True),
    Column("IoU, range", "pairs", lambda r: _range(r["iou_min"], r["iou_max"])),
    Column("chance", "chance", _number("chance"), first=True),
    Column("floor", "floor", _number("floor"), first=True),
    Column("floor, 95 %", "floor", lambda r: _range(r["floor_low"], r["floor_high"])),
    Column("floor with marginals", "floor_marginals", _number("floor_marginals")),
    Column("half IoU", "half_iou", _number("half_iou"), first=True),
    Column("half floor", "half_floor", _number("half_floor")),
    Column("ceiling", "ceiling", _number("ceiling"), first=True),
    Column("with utility sets", "mixed_iou", _number("mixed_iou"), first=True),
    Column("disattenuated", "disattenuated", _number("disattenuated"), first=True),
    Column("disattenuated, shuffled", "disattenuated_floor", _number("disattenuated_floor"), first=True),
    Column("reliability", "reliability", _number("reliability")),
    Column("normalised", "normalised", _number("normalised")),
    Column("normalised, ordinary pairs as zero", "normalised_ordinary", _number("normalised_ordinary")),
    Column("with utility sets, disattenuated", "mixed_disattenuated", _number("mixed_disattenuated")),
    Column("with utility sets, normalised", "mixed_normalised", _number("mixed_normalised")),
    Column("among utility sets", "utility_iou", _number("utility_iou")),
    Column("among utility sets, disattenuated", "utility_disattenuated", _number("utility_disattenuated")),
    Column("among utility sets, normalised", "utility_normalised", _number("utility_normalised")),
    Column("region size, %", "percent", lambda r: f"{r['percent']:.2f}", first=True),
    Column("pairs", "pairs", lambda r: f"{r['defined']} of {r['pairs']}"),
    Column("prompts per set", "n_smallest", prompts, first=True),
    Column("shared prompts, at most", "shared", _number("shared")),
    Column("pool of all but one set, with all sets", "pool_next", _number("pool_next")),
    Column("pool, with the left-out set", "pool_rest", _number("pool_rest")),
    Column("pool, with all sets, shuffled", "pool_shuffled", _number("pool_shuffled")),
    Column("pool, with the left-out set, shuffled", "pool_rest_shuffled", _number("pool_rest_shuffled")),
    Column("in all sets", "core", _number("core")),
    Column("in all sets, shuffled", "core_shuffled", _number("core_shuffled")),
    Column(
        "in all groups of mixed prompts", "core", lambda r: _range(r["core_mixed_low"], r["core_mixed_high"])
    ),
    Column("two blocks of one set", "block_iou", _blocks),
    Column("random parts of two sets", "permuted_iou", _number("permuted_iou")),
    Column(
        "pairs with p ≤ 0.05", "permuted_iou", lambda r: f"{r['differing_pairs']} of {r['permuted_pairs']}"
    ),
    Column("same prompts, other responses", "same_prompts_iou", _number("same_prompts_iou")),
    Column("same responses, other prompts", "same_prompts_iou", _number("same_responses_iou")),
    Column("planted region, IoU", "recovery_iou", _number("recovery_iou")),
    Column("planted region, chance", "recovery_iou", _number("recovery_chance")),
    Column("planted region, AUROC", "recovery_iou", _number("recovery_auroc")),
    Column("planted region, AUROC by chance", "recovery_chance_auroc", _number("recovery_chance_auroc")),
)
"""The columns of numbers, in the order shown; ``columns.html.j2`` says what each is."""


def shown_columns(verdicts: pd.DataFrame) -> list[Column]:
    """Return the columns for which some row of `verdict.measure` has a number."""
    known = {name for name in verdicts if verdicts[name].notna().any()}
    return [column for column in COLUMNS if column.needs in known]


def number_rows(verdicts: pd.DataFrame, columns: list[Column]) -> list[Row]:
    """Return the rows of the table, with the texts of these columns."""
    return [
        Row(
            [record[name] for name in CELL],
            finding_of(SETS, record),
            record["verdict"],
            [column.text(record) for column in columns],
        )
        for record in verdicts.to_dict("records")
    ]
