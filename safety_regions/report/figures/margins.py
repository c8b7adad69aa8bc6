"""Pairwise IoU by layer and by projection, with chance, floor and ceiling."""

from collections.abc import Iterable

import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safety_regions.report.combinations import ROLES, pair_rows
from safety_regions.report.figures.style import COLOURS, LINES, entitle, gridlines, panels, say, styled
from safety_regions.units.addresses import PARTS

SIDES = {"layer": "decoder block (0 is next to the embedding)", "projection": "projection"}
MEANS = ("chance", "floor", "floor_low", "floor_high", "ceiling")


def margins(tables: Iterable[tuple[str, pa.Table]]) -> pd.DataFrame:
    """Compute pairwise IoUs of identification sets by layer and by projection.

    Args:
        tables: (refinement, its overlap table), in the order shown.

    Returns:
        One row per refinement and layer or projection: ``refinement`` (categorical), ``level``, ``place`` (layer or
        projection, text), ``pairs``, ``undefined``, ``median``, ``min`` and ``max`` of the defined IoUs, and
        the means over pairs of `MEANS`. No rows if units are whole layers.
    """
    tables = list(tables)
    frame = pd.concat([_margin(pair_rows(tables, level), level) for level in SIDES], ignore_index=True)
    refinement = pd.CategoricalDtype([name for name, _ in tables], ordered=True)
    order = {name: i for i, name in enumerate(PARTS)}
    frame = frame.astype({"refinement": refinement})
    number = frame["place"].map(lambda place: order[place] if place in order else int(place))
    frame = frame.assign(number=number).sort_values(["refinement", "level", "number"], ignore_index=True)
    return frame.drop(columns="number")


def _margin(rows: pd.DataFrame, level: str) -> pd.DataFrame:
    rows = rows[rows["between"] == ROLES[0]].assign(level=level, place=rows[level].astype(str))
    groups = rows.groupby(["refinement", "level", "place"], observed=True)
    columns = {
        "pairs": groups.size(),
        "undefined": groups.size() - groups["iou"].count(),
        **{name: groups["iou"].agg(name) for name in ("median", "min", "max")},
        **{name: groups[name].mean() for name in MEANS},
    }
    return pd.DataFrame(columns).reset_index()


@styled
def draw_margins(frame: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `margins`: a row of panels per refinement, by layer at the left, by projection at the right."""
    refinements = list(frame["refinement"].cat.categories)
    figure, axes = panels(len(refinements), len(SIDES), width=4.6, height=2.5)
    entitle(figure, "Pairwise IoU by layer and by projection", where)
    for refinement, pair in zip(refinements, axes, strict=True):
        for level, axis in zip(SIDES, pair, strict=True):
            one = frame[(frame["refinement"] == refinement) & (frame["level"] == level)]
            axis.set_title(f"{refinement}, by {level}")
            if one.empty:
                say(axis, "needs two sets, and units smaller than a layer")
                continue
            _draw_one(axis, one)
            axis.set_xlabel(SIDES[level])
            axis.set_ylabel("IoU (0-1)")
    if not frame.empty:
        figure.legend(
            *axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False
        )
    return figure


def _draw_one(axis: Axes, one: pd.DataFrame) -> None:
    x = range(len(one))
    axis.vlines(x, one["min"], one["max"], color=COLOURS[1], linewidth=1, label="range over pairs")
    axis.plot(x, one["median"], color=COLOURS[1], marker="o", markersize=4, linewidth=1.5, label="median IoU")
    for name, look in LINES.items():
        if one[name].notna().any():
            axis.plot(x, one[name], **look, label=f"{name} (mean)")
    if one["floor"].notna().any():
        axis.fill_between(
            x, one["floor_low"], one["floor_high"], color=LINES["floor"]["color"], alpha=0.2, linewidth=0
        )
    step = -(-len(one) // 16)
    axis.set_xticks(list(x)[::step], list(one["place"])[::step])
    axis.set_ylim(bottom=0)
    gridlines(axis, "y")
