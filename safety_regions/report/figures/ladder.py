"""The ladder of IoUs: chance, floor, pairs and ceiling on one axis from 0 to 1."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from safety_regions.report.combinations import FRAME, ROLES, pair_rows
from safety_regions.report.figures.style import COLOURS, GREY, LINES, entitle, gridlines, say, styled

LOOKS = {
    "iou": {
        "color": COLOURS[1],
        "marker": "o",
        "markerfacecolor": COLOURS[1],
        "offset": -0.16,
        "label": "IoU of a pair",
    },
    "half_iou": {
        "color": COLOURS[1],
        "marker": "o",
        "markerfacecolor": "none",
        "offset": 0.16,
        "label": "IoU at half the prompts",
    },
    "ceiling": {
        "color": COLOURS[3],
        "marker": "^",
        "markerfacecolor": "none",
        "offset": 0.16,
        "label": "ceiling of a pair",
    },
}
"""Marks of one pair: the IoU above the middle of its row, what is measured at half the prompts below."""

SPREAD = 0.1
"""Rows are 1 high; the points of its pairs are at most this far above and below their line."""


def ladder(tables: Iterable[tuple[str, pa.Table]]) -> pd.DataFrame:
    """Return one row per pair of sets, for the whole model: ``refinement``, ``between``, ``a``, ``b`` and `FRAME`.

    Args:
        tables: (refinement, its overlap table), in the order shown.
    """
    rows = pair_rows(tables)
    order = ["refinement", "between", "a", "b"]
    return rows[[*order, *FRAME]].sort_values(order, ignore_index=True)


@styled
def draw_ladder(rows: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `ladder`: one row for each refinement and kind of pair."""
    steps = [
        (refinement, role, rows[(rows["refinement"] == refinement) & (rows["between"] == role)])
        for refinement in rows["refinement"].cat.categories
        for role in ROLES
    ]
    steps = [step for step in steps if len(step[2])]
    figure = Figure(figsize=(9.4, 0.7 * max(len(steps), 2) + 1.9), layout="constrained")
    axis = figure.subplots()
    entitle(figure, "From chance to ceiling: pairwise IoU, whole model", where)
    if not steps:
        say(axis, "needs two sets")
        return figure
    for place, (_, _, one) in enumerate(steps):
        _draw_step(axis, place, one)
    _finish(axis, steps)
    return figure


def _draw_step(axis: Axes, place: int, one: pd.DataFrame) -> None:
    low, high = one["floor_low"].mean(), one["floor_high"].mean()
    if np.isfinite([low, high]).all():
        axis.add_patch(
            Rectangle(
                (low, place - 0.4), high - low, 0.8, color=LINES["floor"]["color"], alpha=0.25, linewidth=0
            )
        )
    for name in ("chance", "floor"):
        axis.vlines(one[name].mean(), place - 0.4, place + 0.4, **LINES[name])
    spread = np.linspace(-SPREAD, SPREAD, len(one)) if len(one) > 1 else np.zeros(1)
    for name, look in LOOKS.items():
        mark = {key: look[key] for key in ("color", "marker", "markerfacecolor")}
        y = place + look["offset"] + spread
        axis.plot(one[name], y, linestyle="", markersize=4, alpha=0.7, clip_on=False, **mark)
        middle = place + look["offset"]
        axis.vlines(one[name].median(), middle - 0.17, middle + 0.17, color=look["color"], linewidth=2.4)


def _finish(axis: Axes, steps: list[tuple[str, str, pd.DataFrame]]) -> None:
    labels = [
        f"{refinement}\n{role}, {len(one)} pair{'s' * (len(one) > 1)}{_said(one)}"
        for refinement, role, one in steps
    ]
    axis.set_yticks(range(len(steps)), labels)
    axis.set_ylim(len(steps) - 0.5, -0.5)
    axis.set_xlim(0, 1)
    axis.set_xlabel("IoU (0-1)")
    axis.tick_params(axis="y", length=0)
    gridlines(axis, "x")
    firsts = [one["refinement"].iloc[0] for _, _, one in steps]
    for place in (i for i in range(1, len(steps)) if firsts[i] != firsts[i - 1]):
        axis.axhline(place - 0.5, color=GREY, linewidth=0.6)
    _legend(axis, pd.concat([one for _, _, one in steps]))


def _said(one: pd.DataFrame) -> str:
    """Return the medians of the normalised overlap and of the corrected correlation as a label, as far as known."""
    names = [name for name in ("normalised", "disattenuated") if one[name].notna().any()]
    return "".join(f"\n{name} {one[name].median():.2f}" for name in names)


def _legend(axis: Axes, shown: pd.DataFrame) -> None:
    for name, look in LOOKS.items():
        if shown[name].notna().any():
            mark = {key: look[key] for key in ("color", "marker", "markerfacecolor", "label")}
            axis.plot([], [], linestyle="", markersize=4, **mark)
    axis.plot([], [], color=GREY, linewidth=2.4, label="median")
    for name in ("chance", "floor"):
        if shown[name].notna().any():
            axis.plot([], [], **LINES[name], label=f"{name} (mean)")
    if shown["floor_low"].notna().any():
        axis.fill_between(
            [], [], [], color=LINES["floor"]["color"], alpha=0.25, linewidth=0, label="floor, 95 %"
        )
    axis.figure.legend(loc="outside lower center", ncols=4, frameon=False)
