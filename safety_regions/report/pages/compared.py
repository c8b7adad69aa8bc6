"""The page on what changed between another study and this one: overlaps, what they are read against, and answers."""

from collections.abc import Mapping

import pandas as pd

from safety_regions.report.differing import SIDES
from safety_regions.report.pages.render import Table, render
from safety_regions.report.verdict.measure import CELL

FIRST = "iou"
"""The measure of the first table; the others are in the second."""

NUMBERS = ("there", "here", "here - there")


def compared_page(name: str, rows: pd.DataFrame, answers: pd.DataFrame) -> str:
    """Render the page.

    Args:
        name: what the config calls the other study.
        rows: the table of `compared.compare_results`.
        answers: the table of `compared.compare_answers`.
    """
    first = rows[rows["measure"] == FIRST]
    changed = answers[answers["changed"] == "yes"]
    return render(
        "compared.html.j2",
        name=name,
        counted=_counted(first),
        overlaps=_table(first[first["found"] == "both"], measures=False),
        references=_table(rows[(rows["measure"] != FIRST) & (rows["found"] == "both")], measures=True),
        changed=Table([*CELL, "question", *SIDES], changed[[*CELL, "question", *SIDES]].to_numpy().tolist()),
        same=len(answers) - len(changed),
        alone={
            side: [" / ".join(cell) for cell in first.loc[first["found"] == side, CELL].to_numpy()]
            for side in SIDES
        },
    )


def _counted(first: pd.DataFrame) -> str:
    """How many cells are compared, and in how many of them the interval of the difference excludes zero."""
    both = first[first["found"] == "both"]
    known = both.dropna(subset=["difference_low", "difference_high"])
    other = (known["difference_low"] > 0) | (known["difference_high"] < 0)
    said = (
        f"{len(both)} {_cells(len(both))} in both studies. The IoU of {(both['comparable'] == 'yes').sum()} of them "
        f"can be compared, and the difference of {len(known)} has an interval."
    )
    if known.empty:
        return said
    return (
        f"{said} It excludes zero in {other.sum()}: larger here in {(known['difference_low'] > 0).sum()}, smaller "
        f"here in {(known['difference_high'] < 0).sum()}. If nothing had changed but the draw of the sets, about "
        f"{0.05 * len(known):.1f} would be expected."
    )


def _cells(n: int) -> str:
    return "cell is" if n == 1 else "cells are"


def _table(rows: pd.DataFrame, measures: bool) -> Table:
    labels = [*CELL, *(["measure"] if measures else [])]
    texts = [
        [
            *(row[label] for label in labels),
            *(_interval(row, name) for name in (*SIDES, "difference")),
            f"{row['sets']}",
            f"{row['pairs']}",
            row["comparable"],
            row["differs"] or "nothing known",
        ]
        for row in rows.to_dict("records")
    ]
    header = [*labels, *NUMBERS, "sets", "pairs", "comparable", "what differs"]
    return Table(header, texts, numbers=[*NUMBERS, "sets", "pairs"])


def _interval(row: Mapping, name: str) -> str:
    """A value with its interval; a difference has a sign."""
    sign = "+" if name == "difference" else ""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if pd.isna(value):
        return "–"
    return f"{value:{sign}.3f}" + ("" if pd.isna(low) else f" ({low:{sign}.3f} to {high:{sign}.3f})")
