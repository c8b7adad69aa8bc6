"""IoU and transfer side by side: how far regions overlap, what each does to the prompts of other sets, and whether
regions that overlap more do more alike.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from safety_regions.report.behaviour import CELL
from safety_regions.report.figures.heatmap import Labels, show_matrix
from safety_regions.report.figures.matrices import colour_scale
from safety_regions.report.figures.style import COLOURS, entitle, gridlines, panels, say, styled
from safety_regions.units.behaviour import LOG_ODDS

PLACE = ["refinement", "operation", "dose"]
TEXTS = [*CELL, "operation", "measure", "region_of", "prompts_of"]


def shown_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """The effects on the log-odds of refusing, of every operation at its largest dose.

    Args:
        pairs: `contracts.TRANSFER_PAIRS` rows of one backbone, method and selection.
    """
    frame = pairs.astype(dict.fromkeys(TEXTS, str))
    frame = frame[frame["measure"] == LOG_ODDS]
    largest = frame.groupby(["refinement", "operation"])["dose"].transform("max")
    return frame[frame["dose"] == largest].reset_index(drop=True)


@styled
def draw_transfer(rows: pd.DataFrame, tests: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `shown_pairs`: for each refinement and operation the two matrices and the scatter.

    Args:
        rows: at least one set's region on its own prompts.
        tests: `contracts.TRANSFER` rows of the same regions, for Mantel's r and p.
    """
    places = list(dict.fromkeys(rows[PLACE].itertuples(index=False, name=None)))
    names = list(dict.fromkeys(rows["region_of"])) if places else []
    side = max(2.6, 0.45 * len(names) + 0.09 * max(map(len, names), default=0))
    figure, axes = panels(max(1, len(places)), 3, side + 0.6, side)
    entitle(figure, "Overlap of regions and transfer of their effects", where)
    if not places:
        for axis in axes.flat:
            say(axis, "needs two sets")
    for place, line in zip(places, axes, strict=False):
        one = rows[(rows[PLACE] == list(place)).all(axis=1)]
        _matrix(line[0], one, names, "iou", f"{place[0]}: IoU of regions (0-1)")
        title = f"{place[1]} {place[2]:g}: change of the\nlog-odds of refusing (nats)"
        _matrix(line[1], one, names, "effect", title)
        line[1].set_xlabel("prompts of")
        line[0].set_ylabel("region of")
        _scatter(line[2], one, tests, place)
    return figure


def _matrix(axis: Axes, rows: pd.DataFrame, names: list[str], column: str, title: str) -> None:
    axis.set_title(title)
    values = rows.pivot(index="region_of", columns="prompts_of", values=column).reindex(names, columns=names)
    values, diagonal = values.to_numpy(float), set()
    if column == "iou":
        diagonal = {(i, i) for i in range(len(names))}
        scale = colour_scale(rows.loc[rows["region_of"] != rows["prompts_of"], "iou"])
    else:
        scale = Normalize(np.nanmin(values), np.nanmax(values))
    show_matrix(axis, values, Labels(names, names), scale, digits=2, grey=diagonal)
    axis.set_aspect("equal")
    axis.tick_params(axis="x", rotation=90)


def _scatter(axis: Axes, rows: pd.DataFrame, tests: pd.DataFrame, place: tuple) -> None:
    pairs = rows[rows["region_of"] < rows["prompts_of"]].dropna(subset=["iou", "similarity"])
    if pairs.empty:
        say(axis, "needs two regions with an effect")
        return
    axis.plot(pairs["iou"], pairs["similarity"], "o", color=COLOURS[1], markersize=4)
    axis.set_xlabel("IoU of two regions (0-1)")
    axis.set_ylabel("correlation of their effects\nover prompts")
    axis.set_title(_mantel(tests, place))
    gridlines(axis)
    axis.set_axisbelow(True)


def _mantel(tests: pd.DataFrame, place: tuple) -> str:
    frame = tests.astype({"refinement": str, "operation": str, "measure": str})
    one = frame[(frame[PLACE] == list(place)).all(axis=1) & (frame["measure"] == LOG_ODDS)].dropna(
        subset="mantel"
    )
    if one.empty:
        return "a point for each pair of sets\n(Mantel test: needs four sets)"
    return f"a point for each pair of sets\nMantel r {one['mantel'].iloc[0]:.2f}, p {one['mantel_p'].iloc[0]:.3f}"
