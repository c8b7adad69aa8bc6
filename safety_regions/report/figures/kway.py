"""IoU of k sets at once: does a common region remain as more sets are added?"""

from math import floor, log10

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from safety_regions.report.figures.style import entitle, gridlines, look_of, say, styled

DASHES = {"chance": (0, (4, 2)), "floor": (0, (1, 1.5)), "ceiling": "dashdot"}
"""Line style of each reference that the table holds."""


@styled
def draw_kway(counts: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `combinations.by_count`: medians, quartiles and range against the number of sets."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axis = figure.subplots()
    entitle(figure, "IoU of k sets at once, whole model", where)
    if counts.empty:
        say(axis, "needs two sets")
        return figure
    refinements = list(counts["refinement"].cat.categories)
    for index, refinement in enumerate(refinements):
        one = counts[counts["refinement"] == refinement]
        # Side by side within each k, so that ranges do not hide each other.
        _draw_one(axis, one, shift=0.12 * (index - (len(refinements) - 1) / 2), index=index)
    _finish(axis, counts)
    return figure


def _draw_one(axis: Axes, one: pd.DataFrame, shift: float, index: int) -> None:
    look, refinement = look_of(index), one["refinement"].iloc[0]
    x = one["k"] + shift
    axis.plot(x, one["median"], **look, markersize=5, linewidth=1.5, clip_on=False, label=refinement)
    axis.vlines(x, one["min"], one["max"], color=look["color"], linewidth=0.8)
    axis.vlines(x, one["q25"], one["q75"], color=look["color"], linewidth=3, alpha=0.5)
    for name, dashes in DASHES.items():
        if one[name].notna().any():
            axis.plot(x, one[name], color=look["color"], linestyle=dashes, linewidth=1.1)


def _finish(axis: Axes, counts: pd.DataFrame) -> None:
    subsets = counts.groupby("k")["subsets"].max()
    axis.set_xticks(subsets.index, [f"{k}\n({n})" for k, n in subsets.items()])
    axis.set_xlim(subsets.index.min() - 0.5, subsets.index.max() + 0.5)
    axis.set_yscale("symlog", linthresh=linear_below(counts), linscale=0.4)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    gridlines(axis, "y")
    axis.set_xlabel("number of sets k (subsets of that size)")
    axis.set_ylabel(f"IoU (0-1; logarithmic above {linear_below(counts):g})")
    for name, dashes in DASHES.items():
        if counts[name].notna().any():
            axis.plot([], [], color="#555555", linestyle=dashes, linewidth=1.1, label=f"{name} (mean)")
    axis.figure.legend(
        loc="outside right upper", frameon=False, title="median over subsets\nthick: quartiles, thin: range"
    )


def linear_below(counts: pd.DataFrame) -> float:
    """Where the logarithmic axis turns linear to reach 0: the power of ten below the smallest positive IoU."""
    shown = counts[["min", "median"]].to_numpy().ravel()
    positive = shown[shown > 0]
    return 10.0 ** max(-6, floor(log10(positive.min()))) if positive.size else 0.1
