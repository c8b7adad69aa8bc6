"""Do regions converge as sets are pooled? IoU of growing pools with the next pool, the other sets and all sets."""

from collections.abc import Iterable

import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from safety_regions.report.combinations import by_refinement
from safety_regions.report.figures.style import COLOURS, GREY, LINES, entitle, gridlines, panels, say, styled

AGAINST = {
    "next": "with the pool of one more set",
    "rest": "with the other sets pooled",
    "all": "with all sets pooled",
}


def pool_rows(tables: Iterable[tuple[str, pa.Table]]) -> pd.DataFrame:
    """Stack the pool tables of a cell's refinements.

    Args:
        tables: (refinement, `contracts.POOLS`), in the order shown.

    Returns:
        ``refinement`` (categorical), ``order``, ``k``, ``against`` (categorical, `AGAINST`), ``a``, ``b``, ``n_a``,
        ``n_b``, ``iou``, ``chance`` and ``shuffled``.
    """
    rows = by_refinement({name: table.to_pandas() for name, table in tables})
    rows["against"] = pd.Categorical(rows["against"].astype(object), categories=list(AGAINST))
    rows["shuffled"] = rows["shuffled"].astype(float)
    return rows[["refinement", "order", "k", "against", "a", "b", "n_a", "n_b", "iou", "chance", "shuffled"]]


@styled
def draw_convergence(rows: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `pool_rows`: a row of panels per refinement, a column per comparison."""
    refinements = list(rows["refinement"].cat.categories)
    figure, axes = panels(len(refinements), len(AGAINST), width=3.4, height=2.4)
    entitle(figure, "IoU of the first k sets pooled", where)
    for refinement, line in zip(refinements, axes, strict=True):
        for against, axis in zip(AGAINST, line, strict=True):
            one = rows[(rows["refinement"] == refinement) & (rows["against"] == against)]
            axis.set_title(f"{refinement}\n{AGAINST[against]}")
            if one["iou"].notna().any():
                _draw_one(axis, one)
            else:
                say(axis, "all pools are empty")
    _legend(figure, with_shuffled=rows["shuffled"].notna().any())
    return figure


def _draw_one(axis: Axes, one: pd.DataFrame) -> None:
    for _, order in one.groupby("order"):
        order = order.sort_values("k")
        axis.plot(order["k"], order["iou"], color=GREY, linewidth=0.7, alpha=0.7, marker=".", markersize=3)
    groups = one.groupby("k")["iou"]
    low, middle, high = (groups.quantile(q) for q in (0.25, 0.5, 0.75))
    axis.fill_between(middle.index, low, high, color=COLOURS[1], alpha=0.2, linewidth=0)
    axis.plot(middle.index, middle, color=COLOURS[1], linewidth=2.4, marker="o", markersize=4, clip_on=False)
    chance = one.groupby("k")["chance"].median()
    axis.plot(chance.index, chance, **LINES["chance"], marker="_")
    shuffled = one.groupby("k")["shuffled"].median().dropna()
    axis.plot(shuffled.index, shuffled, **LINES["floor"], marker="x", markersize=4)
    axis.set_ylim(0, 1)
    axis.set_xlim(one["k"].min() - 0.3, one["k"].max() + 0.3)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    gridlines(axis, "y")
    axis.set_xlabel("sets pooled, k")
    axis.set_ylabel("IoU (0-1)")


def _legend(figure: Figure, with_shuffled: bool) -> None:
    axis = figure.axes[0]
    handles = [
        *axis.plot(
            [], [], color=GREY, linewidth=0.7, marker=".", markersize=3, label="one order of the sets"
        ),
        *axis.plot(
            [], [], color=COLOURS[1], linewidth=2.4, marker="o", markersize=4, label="median of the orders"
        ),
        axis.fill_between([], [], [], color=COLOURS[1], alpha=0.2, linewidth=0, label="quartiles"),
        *axis.plot([], [], **LINES["chance"], label="chance (median)"),
    ]
    if with_shuffled:
        handles += axis.plot([], [], **LINES["floor"], marker="x", label="shuffled sets (median)")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
