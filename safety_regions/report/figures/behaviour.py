"""What regions of one backbone, method and selection do, beside their controls: refusals, what the change costs, and
one against the other.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from safety_regions.report.behaviour import main_rows
from safety_regions.report.figures.style import (
    COLOURS,
    GREY,
    LIGHT_GREY,
    entitle,
    gridlines,
    panels,
    say,
    styled,
)
from safety_regions.units.behaviour import (
    ANSWER_NLL,
    CHANGE,
    DIRECTION,
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
FAINT = 0.5
"""How much a band covers that is drawn over a range of sizes."""
PLANE = "fewer refusals against\nwhat they cost"
MARKS = {
    MAGNITUDE: ("^", COLOURS[2]),
    CHANGE: ("D", COLOURS[3]),
    UTILITY: ("s", COLOURS[5]),
    OTHER: ("v", COLOURS[4]),
    DIRECTION: ("X", COLOURS[1]),
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
    figure, axes = panels(len(refinements), len(PANELS) + 1, width=3.9, height=2.8)
    entitle(figure, "What regions do (mean over sets)", where)
    for refinement, line in zip(refinements, axes, strict=True):
        here = rows[rows["refinement"] == refinement]
        shown = [here[(here["measure"] == m) & (here["evaluated"] == e)] for m, e in PANELS]
        for part, title, axis in zip(shown, PANELS.values(), line, strict=False):
            _panel(axis, part)
            axis.set_title(f"{refinement}: {title}")
        _plane(line[-1], *shown)
        line[-1].set_title(f"{refinement}: {PLANE}")
    figure.legend(handles=handles(rows), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _panel(axis: Axes, rows: pd.DataFrame) -> None:
    places = list(dict.fromkeys(zip(rows["operation"], rows["dose"], strict=True)))
    if not places:
        say(axis, "not measured")
        return
    axis.axhline(0, color=GREY, linewidth=0.8)
    own = rows[rows["against"] == NONE].set_index(["operation", "dose"])["effect"]
    for operation in dict.fromkeys(
        operation for operation, _ in places
    ):  # the doses of an operation are joined
        at = [x for x, place in enumerate(places) if place[0] == operation]
        axis.plot(at, [own[places[x]] for x in at], color="black", linewidth=0.8)
    for x, (operation, dose) in enumerate(places):
        here = rows[(rows["operation"] == operation) & (rows["dose"] == dose)]
        for control, same in here.groupby("against", sort=False):
            _control(axis, x, control, same)
        own = here[here["against"] == NONE].iloc[0]
        axis.plot([x, x], [own["effect_low"], own["effect_high"]], color="black", linewidth=1.4, zorder=3)
        axis.plot(x, own["effect"], "o", color="black", markersize=6, zorder=4)
    axis.set_xlim(-0.5, len(places) - 0.5)
    axis.set_xticks(range(len(places)), [f"{operation}\n{dose:g}" for operation, dose in places])
    gridlines(axis, "y")
    axis.set_axisbelow(True)


def _plane(axis: Axes, odds: pd.DataFrame, answers: pd.DataFrame) -> None:
    """Each operation as a point, the region's and those of its controls (means over draws)."""
    keys = ["operation", "dose", "against"]
    both = [
        part.groupby(keys, sort=False)[["effect", "control_effect"]].mean().add_suffix(suffix)
        for part, suffix in ((answers, "_x"), (odds, "_y"))
    ]
    joined = pd.concat(both, axis=1, join="inner").reset_index()
    if joined.empty:
        say(axis, "not measured")
        return
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.axvline(0, color=GREY, linewidth=0.8)
    for row in joined.itertuples():
        if row.against == NONE:
            axis.plot(row.effect_x, row.effect_y, "o", color="black", markersize=6, zorder=4)
            name = f" {row.operation} {row.dose:g}"
            axis.annotate(name, (row.effect_x, row.effect_y), fontsize=7.5, va="bottom")
        elif row.against in MARKS or row.against in BANDS:
            marker, colour = MARKS.get(row.against) or ("o", BANDS[row.against][0])
            axis.plot(row.control_effect_x, row.control_effect_y, marker, color=colour, markersize=5)
    axis.set_xlabel(PANELS[ANSWER_NLL, ORDINARY].replace("\n", " "))
    axis.set_ylabel(PANELS[LOG_ODDS, HARMFUL])


def _control(axis: Axes, x: int, control: str, rows: pd.DataFrame) -> None:
    if control in BANDS:
        colour, shift = BANDS[control]
        low, high = rows["control_low"].min(), rows["control_high"].max()
        axis.plot([x + shift] * 2, [low, high], color=colour, linewidth=7, solid_capstyle="butt")
    elif control in MARKS:
        marker, colour = MARKS[control]
        axis.plot(x + 0.3, rows["control_effect"].mean(), marker, color=colour, markersize=5)


def handles(rows: pd.DataFrame, joined: bool = False) -> list:
    """The legend of the region and of the controls in the rows; ``joined``: lines and faint bands in place of marks."""
    shown = set(rows["against"])
    region = Line2D([], [], color="black", marker="o", label="region, 95 % interval over prompts")
    bands = [
        Patch(color=colour, alpha=FAINT if joined else 1, label=f"{control}: range of draws")
        for control, (colour, _) in BANDS.items()
        if control in shown
    ]
    marks = [
        Line2D([], [], color=colour, marker=marker, linestyle="-" if joined else "none", label=control)
        for control, (marker, colour) in MARKS.items()
        if control in shown
    ]
    return [region, *bands, *marks]
