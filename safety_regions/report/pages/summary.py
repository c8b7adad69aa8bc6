"""The summary page: the verdict on every cell in words, then its numbers, then what was studied."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from safety_regions.report.pages.render import Table, render
from safety_regions.report.verdict.measure import CELL
from safety_regions.report.verdict.sentences import explained


def _number(column: str) -> Callable[[Mapping], str]:
    return lambda r: _said(r[column])


COLUMNS: dict[str, tuple[str, Callable[[Mapping], str]]] = {
    "region size, %": ("percent", lambda r: f"{r['percent']:.2f}"),
    "pairs": ("pairs", lambda r: f"{r['defined']} of {r['pairs']}"),
    "IoU, median": ("pairs", _number("iou")),
    "s.e.": ("iou_se", _number("iou_se")),
    "IoU, range": ("pairs", lambda r: _range(r["iou_min"], r["iou_max"])),
    "chance": ("chance", _number("chance")),
    "floor": ("floor", _number("floor")),
    "floor, 95 %": ("floor", lambda r: _range(r["floor_low"], r["floor_high"])),
    "floor with marginals": ("floor_marginals", _number("floor_marginals")),
    "half IoU": ("half_iou", _number("half_iou")),
    "half floor": ("half_floor", _number("half_floor")),
    "ceiling": ("ceiling", _number("ceiling")),
    "normalised": ("normalised", _number("normalised")),
    "s.e. ": ("normalised_se", _number("normalised_se")),
    "with utility sets": ("mixed_iou", _number("mixed_iou")),
    "… normalised": ("mixed_normalised", _number("mixed_normalised")),
    "… s.e.": ("mixed_normalised_se", _number("mixed_normalised_se")),
    "among utility sets": ("utility_iou", _number("utility_iou")),
    "… normalised ": ("utility_normalised", _number("utility_normalised")),
    "prompts per set": ("n_smallest", lambda r: _prompts(r)),
    "shared prompts, at most": ("shared", _number("shared")),
    "pool of all but one set, with all sets": ("pool_next", _number("pool_next")),
    "… with the left-out set": ("pool_rest", _number("pool_rest")),
    "… with all sets, shuffled": ("pool_shuffled", _number("pool_shuffled")),
    "… with the left-out set, shuffled": ("pool_rest_shuffled", _number("pool_rest_shuffled")),
    "two blocks of one set": ("block_iou", lambda r: _blocks(r)),
    "planted region, IoU": ("recovery_iou", _number("recovery_iou")),
    "planted region, chance": ("recovery_iou", _number("recovery_chance")),
    "planted region, AUROC": ("recovery_iou", _number("recovery_auroc")),
}
"""Header -> (column that must have a number in some row to be shown, function from a row to the text of its cell)."""

FIRST = ("IoU, median", "s.e.", "chance", "normalised", "s.e. ")
"""Columns of numbers in the first table, next to the verdicts."""


def summary_page(verdicts: pd.DataFrame, facts: Mapping[str, Sequence[str]], files: Mapping[str, str]) -> str:
    """Render the table of `verdict.measure` as a page.

    Args:
        verdicts: one row per cell.
        facts: what was studied, term -> values.
        files: where to find more, path -> contents.
    """
    known = {name for name in verdicts if verdicts[name].notna().any()}
    shown = [header for header, (column, _) in COLUMNS.items() if column in known]
    first = [header for header in FIRST if header in shown]
    return render(
        "summary.html.j2",
        verdicts=_table(verdicts, first, words=["verdict"]),
        thresholds=explained(),
        numbers=_table(verdicts, shown, words=[]),
        known=known,
        facts=facts,
        files=Table(["file", "contents"], list(files.items())),
    )


def _table(verdicts: pd.DataFrame, shown: Sequence[str], words: Sequence[str]) -> Table:
    rows = [
        [
            *(r[name] for name in CELL),
            *(COLUMNS[header][1](r) for header in shown),
            *(r[name] for name in words),
        ]
        for r in verdicts.to_dict("records")
    ]
    return Table([*CELL, *shown, *words], rows, numbers=shown)


def _said(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f}"


def _range(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"{low:.3f}-{high:.3f}"


def _prompts(r: Mapping) -> str:
    if pd.isna(r["n_smallest"]):
        return ""
    few, many = f"{r['n_smallest']:.0f}", f"{r['n_largest']:.0f}"
    return few if few == many else f"{few}-{many}"


def _blocks(r: Mapping) -> str:
    return (
        _said(r["block_iou"]) if pd.isna(r["block_n"]) else f"{_said(r['block_iou'])} (n {r['block_n']:.0f})"
    )
