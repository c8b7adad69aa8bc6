"""What regions of one backbone, method and selection do, beside their controls: refusals, and what the change costs."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from safety_regions.report.behaviour import main_rows
from safety_regions.report.figures.style import COLOURS, GREY, LIGHT_GREY, entitle, panels, say, styled
from safety_regions.units.behaviour import (
    ANSWER_NLL,
    CHANGE,
    HARMFUL,
    LOG_ODDS,
    MAGNITUDE,
    MATCHED,
    NONE,
    ORDINARY,
    OTHER,
    RANDOM,
    UTILITY,
)

PANELS = {
    (LOG_ODDS, HARMFUL): "harmful prompts:\nlog-odds of refusing (nats)",
    (ANSWER_NLL, ORDINARY): "ordinary prompts:\nloss of own answers (nats a token)",
}
BANDS = {RANDOM: (LIGHT_GREY, -0.16), MATCHED: (COLOURS[6], 0.16)}
"""Colour and place of the range of draws."""
MARKS = {
    MAGNITUDE: ("^", COLOURS[2]),
    CHANGE: ("D", COLOURS[3]),
    UTILITY: ("s", COLOURS[5]),
    OTHER: ("v", COLOURS[4]),
}


@styled
def draw_behaviour(effects: pd.DataFrame, where: str) -> Figure:
    """Draw the effects of operations on regions: a row of panels per refinement.

    Args:
        effects: a `contracts.EFFECTS` table of one backbone, method and selection.
        where: place in the study, for the title.
    """
    rows = main_rows(effects)
    refinements = list(dict.fromkeys(rows["refinement"]))
    figure, axes = panels(len(refinements), len(PANELS), width=4.6, height=2.6)
    entitle(figure, "What regions do (mean over sets)", where)
    for refinement, line in zip(refinements, axes, strict=True):
        for (measure, evaluated), axis in zip(PANELS, line, strict=True):
            wanted = (
                (rows["refinement"] == refinement)
                & (rows["measure"] == measure)
                & (rows["evaluated"] == evaluated)
            )
            _panel(axis, rows[wanted])
            axis.set_title(f"{refinement}: {PANELS[measure, evaluated]}")
    figure.legend(handles=_handles(rows), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _panel(axis: Axes, rows: pd.DataFrame) -> None:
    places = list(dict.fromkeys(zip(rows["operation"], rows["dose"], strict=True)))
    if not places:
        say(axis, "not measured")
        return
    axis.axhline(0, color=GREY, linewidth=0.8)
    for x, (operation, dose) in enumerate(places):
        here = rows[(rows["operation"] == operation) & (rows["dose"] == dose)]
        for control, same in here.groupby("against", sort=False):
            _control(axis, x, control, same)
        own = here[here["against"] == NONE].iloc[0]
        axis.plot([x, x], [own["effect_low"], own["effect_high"]], color="black", linewidth=1.4, zorder=3)
        axis.plot(x, own["effect"], "o", color="black", markersize=6, zorder=4)
    axis.set_xlim(-0.5, len(places) - 0.5)
    axis.set_xticks(range(len(places)), [f"{operation}\n{dose:g}" for operation, dose in places])
    axis.grid(axis="y", color="#E0E0E0", linewidth=0.6)
    axis.set_axisbelow(True)


def _control(axis: Axes, x: int, control: str, rows: pd.DataFrame) -> None:
    if control in BANDS:
        colour, shift = BANDS[control]
        low, high = rows["control_low"].min(), rows["control_high"].max()
        axis.plot([x + shift] * 2, [low, high], color=colour, linewidth=7, solid_capstyle="butt")
    elif control in MARKS:
        marker, colour = MARKS[control]
        axis.plot(x + 0.3, rows["control_effect"].mean(), marker, color=colour, markersize=5)


def _handles(rows: pd.DataFrame) -> list:
    shown = set(rows["against"])
    handles = [Line2D([], [], color="black", marker="o", label="region, 95 % interval over prompts")]
    handles += [Patch(color=BANDS[c][0], label=f"{c}: range of draws") for c in BANDS if c in shown]
    return handles + [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=control)
        for control, (marker, colour) in MARKS.items()
        if control in shown
    ]
