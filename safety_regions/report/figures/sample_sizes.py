"""Are there enough prompts? IoU of regions found with blocks of n prompts, of two sets or of one set."""

from collections.abc import Iterable

import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from safety_regions.report.combinations import by_refinement
from safety_regions.report.figures.style import COLOURS, LINES, entitle, grid, say, styled

KINDS = {
    "sets": {"color": COLOURS[1], "marker": "o", "shift": 0.97, "label": "two sets"},
    "blocks": {"color": COLOURS[2], "marker": "s", "shift": 1.03, "label": "two blocks of one set"},
}
"""Kinds of pairs; ``shift`` is a factor on n, so that the marks do not hide each other."""


def size_rows(tables: Iterable[tuple[str, pa.Table]]) -> pd.DataFrame:
    """Stack the sample-size tables of a cell's refinements.

    Args:
        tables: (refinement, `contracts.SAMPLE_SIZES`), in the order shown.

    Returns:
        ``refinement`` (categorical), ``n`` (prompts requested), ``pair`` (categorical, `KINDS`), ``a``, ``b``, ``n_a``,
        ``n_b`` (prompts used), ``iou`` and ``chance``.
    """
    rows = by_refinement({name: table.to_pandas() for name, table in tables})
    rows["pair"] = pd.Categorical(rows["pair"].astype(object), categories=list(KINDS))
    return rows[["refinement", "n", "pair", "a", "b", "n_a", "n_b", "iou", "chance"]]


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
    _legend(figure)
    return figure


def _draw_one(axis: Axes, one: pd.DataFrame) -> None:
    for kind, rows in one.groupby("pair", observed=True):
        look, groups = KINDS[kind], rows.groupby("n")["iou"]
        x, colour = groups.median().index * look["shift"], look["color"]
        axis.plot(
            rows["n"] * look["shift"],
            rows["iou"],
            color=colour,
            marker=look["marker"],
            markersize=2.5,
            alpha=0.45,
            linestyle="",
        )
        axis.vlines(x, groups.min(), groups.max(), color=colour, linewidth=0.9)
        axis.plot(x, groups.median(), color=colour, marker=look["marker"], markersize=5, linewidth=1.6)
    chance = one.groupby("n")["chance"].median()
    axis.plot(chance.index, chance, **LINES["chance"], marker="_")
    axis.set_xscale("log")
    axis.set_xticks(chance.index, [str(n) for n in chance.index])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(chance.index.min() / 1.3, chance.index.max() * 1.3)
    axis.set_ylim(0, 1)
    axis.grid(axis="y", color="#E0E0E0", linewidth=0.6)
    axis.set_xlabel("prompts for each region, n (logarithmic)")
    axis.set_ylabel("IoU (0-1)")


def _legend(figure: Figure) -> None:
    axis = figure.axes[0]
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
            for look in KINDS.values()
        ),
        *axis.plot([], [], **LINES["chance"], label="chance (median)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
