"""Dose and response: what small and large regions of one backbone and method do, beside controls."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safety_regions.report.behaviour import PLACE, TEXTS, main_rows
from safety_regions.report.figures.behaviour import BANDS, FAINT, MARKS, PANELS, handles
from safety_regions.report.figures.style import GREY, entitle, gridlines, panels, styled
from safety_regions.units.behaviour import NONE, REGION

WEIGHTS = "n_weights"


def dose_rows(effects: pd.DataFrame, ablation: pd.DataFrame) -> pd.DataFrame:
    """The rows of `main_rows` for the measures of the figure, with the number of weights in the region.

    Args:
        effects, ablation: `contracts.EFFECTS` and `contracts.ABLATION` rows of all selections of a backbone and method.

    Returns:
        Sorted by ``n_weights``, the mean over the regions of all sets.
    """
    rows = main_rows(effects)
    shown = [(rows["measure"] == measure) & (rows["evaluated"] == role) for measure, role in PANELS]
    regions = ablation.astype({name: str for name in (*TEXTS, "control") if name in ablation})
    sizes = regions[regions["control"] == REGION].groupby(PLACE)[WEIGHTS].mean()
    return rows[shown[0] | shown[1]].join(sizes, on=PLACE).sort_values(WEIGHTS, ignore_index=True)


@styled
def draw_dose_response(rows: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `dose_rows`: a row of panels per measure, a panel per refinement, operation and dose.

    Args:
        rows: at least one region.
        where: place in the study, for the title.
    """
    places = list(dict.fromkeys(rows[["refinement", "operation", "dose"]].itertuples(index=False, name=None)))
    figure, axes = panels(len(PANELS), len(places), width=3.4, height=2.6)
    entitle(figure, "Dose and response: effects of smaller and larger regions (mean over sets)", where)
    for (measure, title), line in zip(PANELS.items(), axes, strict=True):
        for place, axis in zip(places, line, strict=True):
            here = (rows[["refinement", "operation", "dose"]] == list(place)).all(axis=1)
            of_measure = rows[["measure", "evaluated"]].apply(tuple, axis=1) == measure
            _panel(axis, rows[here & of_measure])
            axis.set_title(f"{place[0]}, {place[1]} {place[2]:g}")
        line[0].set_ylabel(title)
    for axis in axes[-1]:
        axis.set_xlabel("weights in the region")
    figure.legend(handles=handles(rows, joined=True), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _panel(axis: Axes, rows: pd.DataFrame) -> None:
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.set_xscale("log")
    for control, same in rows.groupby("against", sort=False):
        by_size = same.groupby(WEIGHTS)
        sizes = list(by_size.groups)
        if control in BANDS:
            low, high = by_size["control_low"].min(), by_size["control_high"].max()
            axis.fill_between(sizes, low, high, color=BANDS[control][0], alpha=FAINT, linewidth=0)
        elif control in MARKS:
            marker, colour = MARKS[control]
            values = by_size["control_effect"].mean()
            axis.plot(sizes, values, marker=marker, color=colour, markersize=4, linewidth=0.9)
        elif control == NONE:
            low, mid, high = (by_size[name].first() for name in ("effect_low", "effect", "effect_high"))
            axis.errorbar(
                sizes, mid, [mid - low, high - mid], color="black", marker="o", markersize=5, linewidth=1.2
            )
    gridlines(axis)
    axis.set_axisbelow(True)
