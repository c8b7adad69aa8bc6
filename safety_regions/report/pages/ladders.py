"""The ladder of a backbone: every cell between chance and ceiling on one axis, as one SVG.

The SVG is a file of its own and a part of the page. Places along the axis are per cent of its width, so it fits any
width with text of the same size. Colours tell methods apart, markers the roles of values, as in `figures.ladder`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from safety_regions.report.behaviour import CELL
from safety_regions.report.figures.style import COLOURS
from safety_regions.report.pages.render import render

KEYS = CELL[1:]
VALUES = (
    *(
        "percent",
        "pairs",
        "iou",
        "iou_se",
        "iou_min",
        "iou_max",
        "chance",
        "floor",
        "floor_low",
        "floor_high",
    ),
    *("mixed_pairs", "mixed_iou", "half_iou", "ceiling"),
)
"""Columns of `verdict.measure` that the ladder shows."""

ROLES = {
    "iou": "two sets, ± std. error",
    "iou_min": "range over pairs",
    "mixed_iou": "with an ordinary set",
    "half_iou": "two sets, half prompts",
    "ceiling": "ceiling, half prompts",
    "chance": "chance",
    "floor": "floor, 95 % interval",
}
"""Column -> its words in the legend, short because two fit side by side on a telephone."""

HALVES = ("half_iou", "ceiling")
"""What is measured at half the prompts is drawn below the line of what is measured at all of them."""

MARGIN = 1.5
"""Per cent of the width left free at each end of the axis, so that no mark is cut off."""

HEAD, ROW, LANE, TEXT = 28, 21, 14, 17
"""Heights in pixels: of a method's name, of a line of the legend, of a line of marks, of a line of text."""


class Strip(NamedTuple):
    """A cell on the axis: ``top`` (pixels), label, the IoU in words, all values in words, and column -> place (%)."""

    top: int
    refinement: str
    iou: str
    words: str
    at: Mapping[str, float]


class Group(NamedTuple):
    """The cells of a method and selection; ``look`` counts the methods of the study."""

    top: int
    name: str
    note: str
    look: int
    strips: Sequence[Strip]


def ladder_rows(verdicts: pd.DataFrame, backbone: str) -> pd.DataFrame:
    """Return the rows of one backbone with the columns that its ladder shows.

    Args:
        verdicts: the table of `verdict.measure`, or what was read back from its file.
    """
    return verdicts.loc[verdicts["backbone"] == backbone, [*CELL, *VALUES]]


def draw_ladders(
    rows: pd.DataFrame, backbone: str, methods: Sequence[str], data_free: Collection[str] = ()
) -> str:
    """Draw the table of `ladder_rows`, at least one row.

    Args:
        methods: all methods of the study, so that each has the same colour for every backbone.
        data_free: methods whose scores depend on no prompt; they are marked as baselines.
    """
    known = [role for role in ROLES if rows[role].notna().any()]
    halves = any(role in known for role in HALVES)
    lanes = 2 * LANE if halves else LANE
    legend = 2 * TEXT + 8
    top = axis = legend + -(-len(known) // 2) * ROW + TEXT + 6
    groups = []
    for (method, selection), cells in rows.groupby(KEYS[:2], sort=False):
        start, strips = top, []
        top += HEAD
        for record in cells.to_dict("records"):
            strips.append(_strip(top, record))
            top += TEXT + lanes + 6
        note = "data-free baseline" if method in data_free else ""
        groups.append(Group(start, f"{method} / {selection}", note, methods.index(method), strips))
    return render(
        "ladders.svg.j2",
        colours=COLOURS,
        backbone=backbone,
        cells=len(rows),
        legend=[(role, ROLES[role]) for role in known],
        legend_top=legend,
        row=ROW,
        axis=axis,
        bottom=top,
        height=top + TEXT + 6,
        ticks=[(place(value / 5), f"{value / 5:g}") for value in range(6)],
        groups=groups,
        lanes=lanes,
        lane=LANE,
        text=TEXT,
    )


def place(value: float) -> float:
    """The place of an IoU on the axis, in per cent of the width."""
    return round(MARGIN + (100 - 2 * MARGIN) * value, 2)


def _strip(top: int, record: Mapping) -> Strip:
    error = record["iou_se"]
    ends = {} if pd.isna(error) else {"low": record["iou"] - error, "high": record["iou"] + error}
    values = {name: record[name] for name in VALUES[2:] if name not in ("iou_se", "mixed_pairs")} | ends
    at = {name: place(min(max(value, 0), 1)) for name, value in values.items() if not pd.isna(value)}
    iou = "no IoU" if pd.isna(record["iou"]) else f"{record['iou']:.3f}"
    iou += "" if pd.isna(error) else f" ± {error:.3f}"
    shown = {
        "chance": record["chance"],
        "floor": record["floor"],
        "with ordinary sets": record["mixed_iou"],
        "at half the prompts": record["half_iou"],
        "ceiling": record["ceiling"],
    }
    said = [f"{name} {value:.3f}" for name, value in shown.items() if not pd.isna(value)]
    return Strip(top, record["refinement"], iou, ", ".join([f"IoU {iou}", *said]), at)
