"""The summary page: the verdict on every cell in words, then its numbers, then what was studied."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from safety_regions.report.pages.render import Table, render
from safety_regions.report.verdict.measure import CELL
from safety_regions.report.verdict.sentences import explained


def _number(column: str) -> Callable[[Mapping], str]:
    """The number, with ± its standard error if the table has one."""
    return lambda r: _said(r[column], r.get(f"{column}_se"))


COLUMNS: dict[str, tuple[str, Callable[[Mapping], str]]] = {
    "region size, %": ("percent", lambda r: f"{r['percent']:.2f}"),
    "pairs": ("pairs", lambda r: f"{r['defined']} of {r['pairs']}"),
    "IoU, median": ("pairs", _number("iou")),
    "IoU, range": ("pairs", lambda r: _range(r["iou_min"], r["iou_max"])),
    "chance": ("chance", _number("chance")),
    "floor": ("floor", _number("floor")),
    "floor, 95 %": ("floor", lambda r: _range(r["floor_low"], r["floor_high"])),
    "floor with marginals": ("floor_marginals", _number("floor_marginals")),
    "half IoU": ("half_iou", _number("half_iou")),
    "half floor": ("half_floor", _number("half_floor")),
    "ceiling": ("ceiling", _number("ceiling")),
    "disattenuated": ("disattenuated", _number("disattenuated")),
    "… with shuffled statistics": ("disattenuated_floor", _number("disattenuated_floor")),
    "reliability": ("reliability", _number("reliability")),
    "normalised": ("normalised", _number("normalised")),
    "… ordinary pairs as zero": ("normalised_ordinary", _number("normalised_ordinary")),
    "with utility sets": ("mixed_iou", _number("mixed_iou")),
    "… disattenuated": ("mixed_disattenuated", _number("mixed_disattenuated")),
    "… normalised": ("mixed_normalised", _number("mixed_normalised")),
    "among utility sets": ("utility_iou", _number("utility_iou")),
    "… disattenuated ": ("utility_disattenuated", _number("utility_disattenuated")),
    "… normalised ": ("utility_normalised", _number("utility_normalised")),
    "prompts per set": ("n_smallest", lambda r: _prompts(r)),
    "shared prompts, at most": ("shared", _number("shared")),
    "pool of all but one set, with all sets": ("pool_next", _number("pool_next")),
    "… with the left-out set": ("pool_rest", _number("pool_rest")),
    "… with all sets, shuffled": ("pool_shuffled", _number("pool_shuffled")),
    "… with the left-out set, shuffled": ("pool_rest_shuffled", _number("pool_rest_shuffled")),
    "two blocks of one set": ("block_iou", lambda r: _blocks(r)),
    "random parts of two sets": ("permuted_iou", _number("permuted_iou")),
    "… pairs with p ≤ 0.05": ("permuted_iou", lambda r: f"{r['differing_pairs']} of {r['permuted_pairs']}"),
    "same prompts, other responses": ("same_prompts_iou", _number("same_prompts_iou")),
    "same responses, other prompts": ("same_prompts_iou", _number("same_responses_iou")),
    "planted region, IoU": ("recovery_iou", _number("recovery_iou")),
    "planted region, chance": ("recovery_iou", _number("recovery_chance")),
    "planted region, AUROC": ("recovery_iou", _number("recovery_auroc")),
}
"""Header -> (column that must have a number in some row to be shown, function from a row to the text of its cell)."""

FIRST = ("IoU, median", "chance", "disattenuated", "… with shuffled statistics", "… disattenuated")
"""Columns of numbers in the first table, next to the verdicts: those that may be compared between methods."""


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


def _said(value: float, error: float | None = None) -> str:
    if pd.isna(value):
        return "–"
    return f"{value:.3f}" if pd.isna(error) else f"{value:.3f} ± {error:.3f}"


def _range(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"{low:.3f}-{high:.3f}"


def _prompts(r: Mapping) -> str:
    if pd.isna(r["n_smallest"]):
        return ""
    few, many = f"{r['n_smallest']:.0f}", f"{r['n_largest']:.0f}"
    return few if few == many else f"{few}-{many}"


def _blocks(r: Mapping) -> str:
    return (
        _said(r["block_iou"])
        if pd.isna(r["block_n"])
        else f"{_said(r['block_iou'], r['block_iou_se'])} (n {r['block_n']:.0f})"
    )
