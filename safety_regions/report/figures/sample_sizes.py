"""Are there enough prompts? IoU of regions found with blocks of n prompts, of two sets or of one set.

With floors, the normalised overlap is shown at each n: 0 for the IoU of two sets with shuffled statistics, 1 for that
of two blocks of one set.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from safety_regions.report.combinations import by_refinement
from safety_regions.report.figures.style import COLOURS, LINES, entitle, grid, gridlines, say, styled
from safety_regions.units.names import parse_name

KINDS = {
    "sets": {"color": COLOURS[1], "marker": "o", "shift": 0.97, "label": "two sets"},
    "blocks": {"color": COLOURS[2], "marker": "s", "shift": 1.03, "label": "two blocks of one set"},
    "shuffled": {"color": COLOURS[5], "marker": "x", "shift": 1.0, "label": "two sets, shuffled statistics"},
}
"""Kinds of pairs; ``shift`` is a factor on n, so that the marks do not hide each other."""

NORMALISED = {"color": COLOURS[4], "marker": "D", "shift": 1.0, "label": "two sets, normalised overlap"}


def size_rows(tables: Iterable[tuple[str, pa.Table]]) -> pd.DataFrame:
    """Stack the sample-size tables of a cell's refinements.

    Args:
        tables: (refinement, `contracts.SAMPLE_SIZES`), in the order shown.

    Returns:
        ``refinement`` (categorical), ``n`` (prompts requested), ``pair`` (categorical, `KINDS`), ``a``, ``b``, ``n_a``,
        ``n_b`` (prompts used), ``iou``, ``chance`` and ``normalised`` (see `_normalised`).
    """
    rows = by_refinement({name: table.to_pandas() for name, table in tables})
    rows["pair"] = pd.Categorical(rows["pair"].astype(object), categories=list(KINDS))
    rows["normalised"] = _normalised(rows)
    return rows[["refinement", "n", "pair", "a", "b", "n_a", "n_b", "iou", "chance", "normalised"]]


def _normalised(rows: pd.DataFrame) -> pd.Series:
    """Return (iou - floor) / (ceiling - floor) for pairs of two sets, all three at the same n.

    The floor is the IoU of the same sets with shuffled statistics, the ceiling the mean IoU of two blocks of one set,
    averaged over both sets. NaN for other kinds of pairs, where either is missing, and where ceiling <= floor.
    """
    sets = [rows[name].map(lambda block: parse_name(block).datasets[0]).astype(object) for name in "ab"]
    place = [rows["refinement"].astype(object), rows["n"]]
    ious = {kind: rows["iou"].where(rows["pair"] == kind) for kind in KINDS}
    floor = ious["shuffled"].groupby([*place, *sets]).transform("mean")
    agreed = ious["blocks"].groupby([*place, sets[0]]).mean()
    ceiling = sum(agreed.reindex(pd.MultiIndex.from_arrays([*place, one])).to_numpy() for one in sets) / 2
    room = pd.Series(ceiling, rows.index) - floor
    return (ious["sets"] - floor) / room.where(room > 0, np.nan)


@styled
def draw_sample_sizes(rows: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `size_rows`: IoU against n, a panel per refinement."""
    refinements = list(rows["refinement"].cat.categories)
    figure, axes = grid(len(refinements), 4.6, 3.1)
    entitle(figure, "IoU of regions found with n prompts", where)
    for axis, refinement in zip(axes, refinements, strict=True):
        one = rows[rows["refinement"] == refinement]
        axis.set_title(refinement)
        if one["iou"].notna().any():
            _draw_one(axis, one)
        else:
            say(axis, "all regions are empty")
    _legend(figure, rows)
    return figure


def _draw_one(axis: Axes, one: pd.DataFrame) -> None:
    for kind, rows in one.groupby("pair", observed=True):
        _draw_kind(axis, rows, "iou", KINDS[kind])
    normalised = one.dropna(subset="normalised")
    _draw_kind(axis, normalised, "normalised", NORMALISED)
    chance = one.groupby("n")["chance"].median()
    axis.plot(chance.index, chance, **LINES["chance"], marker="_")
    axis.set_xscale("log")
    axis.set_xticks(chance.index, [str(n) for n in chance.index])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(chance.index.min() / 1.3, chance.index.max() * 1.3)
    axis.set_ylim(min(0, normalised["normalised"].min()), max(1, normalised["normalised"].max()))
    gridlines(axis, "y")
    axis.set_xlabel("prompts for each region, n (logarithmic)")
    axis.set_ylabel("IoU (0-1)" if normalised.empty else "IoU (0-1), normalised overlap")


def _draw_kind(axis: Axes, rows: pd.DataFrame, value: str, look: dict) -> None:
    """Draw a column: its values as small marks, their range as a bar, their median for each n as a line."""
    groups, colour, marker = rows.groupby("n")[value], look["color"], look["marker"]
    x = groups.median().index * look["shift"]
    axis.plot(
        rows["n"] * look["shift"],
        rows[value],
        color=colour,
        marker=marker,
        markersize=2.5,
        alpha=0.45,
        linestyle="",
    )
    axis.vlines(x, groups.min(), groups.max(), color=colour, linewidth=0.9)
    axis.plot(x, groups.median(), color=colour, marker=marker, markersize=5, linewidth=1.6)


def _legend(figure: Figure, rows: pd.DataFrame) -> None:
    axis, kinds = figure.axes[0], set(rows["pair"])
    shown = [look for kind, look in KINDS.items() if kind in kinds or kind != "shuffled"]
    shown += [NORMALISED] if rows["normalised"].notna().any() else []
    handles = [
        *(
            axis.plot(
                [],
                [],
                color=look["color"],
                marker=look["marker"],
                markersize=5,
                label=f"{look['label']}: median, range",
            )[0]
            for look in shown
        ),
        *axis.plot([], [], **LINES["chance"], label="chance (median)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
