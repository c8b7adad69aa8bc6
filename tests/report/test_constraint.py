"""What is said of constraints follows from seeds, controls and the task, and is seldom wrong."""

import numpy as np
import pandas as pd
import pytest

from safety_regions.report.constraint import constraint_rows
from safety_regions.report.figures.constraint import courses, draw_constraint
from safety_regions.units.behaviour import TAUGHT

CELL = {"backbone": "llama", "method": "snip", "selection": "row-0.05", "refinement": "raw"}
START = {"refusal_log_odds": 5.0, "refused": 1.0, "task_loss": 3.0}


def table(
    region=4.0, control=1.0, free=1.0, task=1.0, seeds=5, noise=0.1, seed=0, restored=(), attack="ordinary"
):
    """Models that end with these log-odds; the free model's task loss falls from 3 to 1, that of others to ``task``."""
    rng, rows = np.random.default_rng(seed), []

    def add(number, arm, control_of, step, odds, loss):
        values = (
            START if step == 0 else {"refusal_log_odds": odds, "refused": float(odds > 2), "task_loss": loss}
        )
        for measure, value in values.items():
            role = TAUGHT[attack] if measure == "task_loss" else "harmful"
            rows.append(
                CELL
                | {
                    "name": "fraud",
                    "plan": "plain",
                    "attack": attack,
                    "learning_rate": 0.001,
                    "seed": number,
                }
                | {
                    "arm": arm,
                    "control": control_of,
                    "draw": 0,
                    "step": step,
                    "evaluated": role,
                    "measure": measure,
                }
                | {"value": value, "n": 10, "n_changed": 5}
            )

    for number in range(seeds):
        shared = rng.normal(scale=noise)  # the order of the data moves all arms alike
        add(number, "free", "none", 0, None, None)
        add(number, "free", "none", 60, free + shared + rng.normal(scale=noise), 1.0)
        add(number, "freeze", "region", 60, region + shared + rng.normal(scale=noise), task)
        if control is not None:
            add(number, "freeze", "random", 60, control + shared + rng.normal(scale=noise), task)
        for name in restored:
            for of in ("none", "region", "random"):
                add(number, name, of, 60, free + shared + 3 * (of != "random") + rng.normal(scale=noise), 1.0)
    return pd.DataFrame(rows)


def said(**changes):
    [row] = constraint_rows(table(**changes)).to_dict("records")
    return row["conclusion"]


def test_values_are_means_and_differences_are_paired_by_seed():
    frame = table()
    [row] = constraint_rows(frame).to_dict("records")
    odds = frame[(frame["measure"] == "refusal_log_odds") & (frame["step"] == 60)]
    values = odds.pivot(index="seed", columns=["arm", "control"], values="value")
    difference = values["freeze", "region"] - values["free", "none"]
    assert row["kept"] == pytest.approx(difference.mean())
    half = 2.776445 * difference.std(ddof=1) / np.sqrt(5)
    assert row["kept_low"] == pytest.approx(difference.mean() - half, rel=1e-5)
    assert row["beyond"] == pytest.approx((values["freeze", "region"] - values["freeze", "random"]).mean())
    assert (row["before"], row["seeds"], row["refused_before"], row["task_before"]) == (5.0, 5, 1.0, 3.0)
    assert row["controls"].startswith("random +")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "more refusals are kept than with every control, and the task was learned"),
        ({"task": 2.9}, "but the task was not learned"),
        ({"control": 4.0}, "no more refusals are kept than with a control"),
        ({"region": 1.0}, "keeps no more refusals than free training"),
        # Found with a tiny organism: all refusals were gone, and 0.16 of 11 nats more were left than with controls.
        (
            {"region": 1.5, "control": 0.9, "noise": 0.01},
            "more is kept than with every control, but only 13% of what",
        ),
        ({"control": None}, "but no control was trained"),
        ({"free": 5.0, "region": 5.0}, "free training does not lower refusals"),
        ({"seeds": 2}, "nothing can be said of 2 seeds"),
    ],
)
def test_conclusions(changes, words):
    assert words in said(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"region": 8.0, "control": 6.0}, "it raises refusals more than with every control"),
        ({"region": 8.0, "control": 8.0}, "not more than with a control"),
        ({"region": 4.0}, "it does not raise refusals"),
        ({"region": 8.0, "control": None}, "no control was trained"),
        ({"region": 8.0, "seeds": 2}, "nothing can be said of 2 seeds"),
    ],
)
def test_conclusions_of_a_plan_that_teaches_refusals(changes, words):
    assert words in said(attack="refuse", **changes)


def test_there_is_a_panel_for_every_run_and_no_empty_one():
    other = table().assign(plan="other", learning_rate=0.01)
    figure = draw_constraint(courses(pd.concat([table(), other])), "llama / snip")
    assert [axis.get_title() for axis in figure.axes] == ["raw, plain, rate 0.001", "raw, other, rate 0.01"]
    assert all(axis.lines for axis in figure.axes)


def test_a_model_that_is_restored_everywhere_is_no_control():
    rows = {row["arm"]: row for row in constraint_rows(table(restored=("lox-1.25",))).to_dict("records")}
    assert "all weights +" in rows["lox-1.25"]["controls"]
    assert "more refusals are kept than with every control" in rows["lox-1.25"]["conclusion"]
    assert rows["lox-1.25"]["beyond"] == pytest.approx(3, abs=0.3)
    figure = draw_constraint(courses(table(restored=("lox-1.25",))), "llama / snip")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["free", "freeze", "lox-1.25", "region", "all weights", "random"]


def test_the_figure_shows_the_course_of_every_arm():
    rows = courses(table())
    frame = table()
    chosen = frame[(frame["arm"] == "freeze") & (frame["control"] == "region")]
    odds = chosen[chosen["measure"] == "refusal_log_odds"]["value"]
    row = rows[(rows["arm"] == "freeze") & (rows["control"] == "region")].iloc[0]
    assert [row["value"], row["low"], row["high"]] == pytest.approx([odds.mean(), odds.min(), odds.max()])
    figure = draw_constraint(rows, "llama / snip / row-0.05")
    [axis] = figure.axes
    assert axis.get_title() == "raw, plain, rate 0.001"
    lines = [list(line.get_xdata()) for line in axis.lines]
    assert lines == [[0, 60]] * 3, "free, the region frozen, a control frozen: all start before training"


@pytest.mark.slow
def test_false_claims_are_rare():
    """A region that keeps as much as its control is said to keep more in at most one of twenty studies."""
    claims = [
        "more refusals are kept than with every control"
        in said(region=3.0, control=3.0, noise=0.5, seed=seed)
        for seed in range(200)
    ]
    assert np.mean(claims) <= 0.05
