"""Does what k sets have in common level off, and above what shuffled statistics and regrouped prompts give?"""

from collections.abc import Iterable

import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from safety_regions.report.combinations import by_refinement
from safety_regions.report.figures.style import COLOURS, LINES, entitle, panels, styled

LOOKS = {
    "sets": {"color": COLOURS[1], "linewidth": 2.2, "marker": "o", "label": "sets"},
    "regrouped": {"color": COLOURS[3], "linewidth": 1.6, "marker": "s", "label": "regrouped prompts"},
    "shuffled": {**LINES["floor"], "marker": "x", "label": "shuffled statistics"},
}
"""Kind of regions -> how its line looks, in the order of the table."""
CHANCE = {**LINES["chance"], "label": "chance"}
VALUES = ("intersection", "union", "iou", "retained")
TITLES = {
    "intersection": "in all k (regions)",
    "union": "in any of k (regions)",
    "iou": "IoU of k",
    "retained": "retained by the k-th",
}


def cores(tables: Iterable[tuple[str, pa.Table]]) -> pd.DataFrame:
    """Average the tables of cores of a cell's refinements over draws.

    Args:
        tables: (refinement, `contracts.CORES`), in the order shown.

    Returns:
        One row per ``refinement`` (categorical), ``kind`` (categorical, `LOOKS`) and ``k``: ``draws``, ``subsets`` of
        one draw, the columns of the contract from ``intersection`` to ``chance_union`` (means over draws, of
        ``..._low`` and ``..._high`` the smallest and the largest), and ``size``, the mean region.
    """
    return by_refinement({refinement: _averaged(table.to_pandas()) for refinement, table in tables})


def _averaged(frame: pd.DataFrame) -> pd.DataFrame:
    present = frame["kind"].astype(str)
    frame["kind"] = pd.Categorical(present, [kind for kind in LOOKS if kind in set(present)])
    frame[["iou", "iou_low", "iou_high", "retained"]] = frame[
        ["iou", "iou_low", "iou_high", "retained"]
    ].astype(float)
    numbers = frame.columns.drop(["kind", "draw", "k", "subsets"])
    how = {
        name: "min" if name.endswith("_low") else "max" if name.endswith("_high") else "mean"
        for name in numbers
    }
    groups = frame.groupby(["kind", "k"], observed=True, sort=True)
    found = groups.agg({"draw": "nunique", "subsets": "first", **how}).rename(columns={"draw": "draws"})
    found["size"] = found.groupby("kind", observed=True)["intersection"].transform("first")
    return found.reset_index()


@styled
def draw_cores(rows: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `cores`: a row of panels per refinement, a column each for `VALUES`."""
    refinements = list(rows["refinement"].cat.categories)
    figure, axes = panels(len(refinements), len(VALUES), width=2.9, height=2.5)
    entitle(figure, "What k sets have in common (mean over subsets)", where)
    for refinement, line in zip(refinements, axes, strict=True):
        one = rows[rows["refinement"] == refinement]
        for value, axis in zip(VALUES, line, strict=True):
            axis.set_title(f"{refinement}\n{TITLES[value]}")
            _draw_one(axis, one, value)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _draw_one(axis: Axes, rows: pd.DataFrame, value: str) -> None:
    for kind, one in rows.dropna(subset=value).groupby("kind", observed=True, sort=True):
        by = one["size"].where(one["size"] > 0) if value in ("intersection", "union") else 1
        axis.plot(one["k"], one[value] / by, markersize=4, clip_on=False, **LOOKS[kind])
        if f"{value}_low" in one and kind != "shuffled":
            low, high = (one[f"{value}_{end}"] / by for end in ("low", "high"))
            axis.fill_between(one["k"], low, high, color=LOOKS[kind]["color"], alpha=0.15, linewidth=0)
        if f"chance_{value}" in one and kind == "sets":
            axis.plot(one["k"], one[f"chance_{value}"] / by, **CHANCE)
    axis.set_ylim(bottom=0, top=None if value == "union" else 1)
    axis.set_xlim(rows["k"].min() - 0.3, rows["k"].max() + 0.3)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", color="#E0E0E0", linewidth=0.6)
    axis.set_xlabel("sets, k")
