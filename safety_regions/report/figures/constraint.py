"""Refusals along fine-tuning, for each arm: the region and its controls frozen, alone, or set back at the end."""

from collections.abc import Iterable, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from safety_regions.report.constraint import ALL, TEXTS
from safety_regions.report.figures.style import COLOURS, GREY, entitle, grid, gridlines, styled
from safety_regions.units.behaviour import (
    CHANGE,
    FREE,
    FREEZE,
    HARMFUL,
    LOG_ODDS,
    MAGNITUDE,
    MATCHED,
    NONE,
    ONLY,
    RANDOM,
    REGION,
    REWIND,
    UTILITY,
)

LOOKS = {
    FREE: (GREY, "-"),
    FREEZE: (COLOURS[1], "-"),
    ONLY: (COLOURS[3], "-"),
    REWIND: (COLOURS[2], "none"),
}
"""Colour and line of each arm. Restored models, such as the rewound one, exist only at the end of training."""
RESTORED = (COLOURS[4], COLOURS[5], COLOURS[6], COLOURS[0])
MARKERS = {REGION: "o", NONE: "X", RANDOM: "s", MATCHED: "P", MAGNITUDE: "^", CHANGE: "D", UTILITY: "v"}


def courses(table: pd.DataFrame) -> pd.DataFrame:
    """Mean log-odds of refusing harmful prompts by plan, learning rate, arm, control and step; ``low``, ``high``: range
    of the seeds' means.

    Args:
        table: rows of `contracts.CONSTRAINT` of one backbone, method and selection. The free model before training
            starts every course.
    """
    frame = table.astype(dict.fromkeys(TEXTS, str))
    frame = frame[(frame["measure"] == LOG_ODDS) & (frame["evaluated"] == HARMFUL)]
    keys = ["refinement", "plan", "learning_rate", "arm", "control", "step"]
    seeds = frame.groupby([*keys, "seed"], sort=False)["value"].mean().reset_index()
    found = seeds.groupby(keys, sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
    return found.rename(columns={"mean": "value", "min": "low", "max": "high"})


@styled
def draw_constraint(rows: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `courses`: a panel per refinement, plan and learning rate."""
    runs, looks = rows.groupby(["refinement", "plan", "learning_rate"], sort=False), _looks(rows["arm"])
    figure, axes = grid(runs.ngroups, width=4.0, height=2.8)
    entitle(
        figure, "Refusals along fine-tuning (log-odds of refusing, nats; mean over seeds and sets)", where
    )
    for ((refinement, plan, rate), run), axis in zip(runs, axes, strict=True):
        _panel(axis, run, looks)
        axis.set_title(f"{refinement}, {plan}, rate {rate:g}")
    figure.legend(handles=_handles(rows, looks), loc="outside lower center", ncols=5, frameon=False)
    return figure


def _looks(arms: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Arm -> colour and line, for the arms of `LOOKS` and for those that restore a model."""
    others = [arm for arm in dict.fromkeys(arms) if arm not in LOOKS]
    return LOOKS | {arm: (RESTORED[i % len(RESTORED)], "none") for i, arm in enumerate(others)}


def _panel(axis: Axes, rows: pd.DataFrame, looks: Mapping[str, tuple[str, str]]) -> None:
    start = rows[rows["step"] == 0]
    for (arm, control), same in rows.groupby(["arm", "control"], sort=False):
        colour, line = looks[arm]
        course = same if arm == FREE or line == "none" else pd.concat([start, same])
        own = control == REGION or arm == FREE
        look = {"color": colour, "linestyle": line, "marker": MARKERS.get(control, "."), "markersize": 4}
        axis.plot(
            course["step"], course["value"], **look, alpha=1.0 if own else 0.5, linewidth=1.6 if own else 0.9
        )
    axis.set_xlabel("optimiser steps")
    gridlines(axis, "y")
    axis.set_axisbelow(True)


def _handles(rows: pd.DataFrame, looks: Mapping[str, tuple[str, str]]) -> list[Line2D]:
    arms = [arm for arm in looks if arm in set(rows["arm"])]
    restored = rows.loc[rows["arm"] != FREE, "control"]
    labels = {control: ALL if control == NONE else control for control in MARKERS if control in set(restored)}
    handles = [Line2D([], [], color=looks[arm][0], linewidth=2, label=arm) for arm in arms]
    return handles + [
        Line2D([], [], color="black", marker=MARKERS[control], linestyle="none", markersize=4, label=label)
        for control, label in labels.items()
    ]
