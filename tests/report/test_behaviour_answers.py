"""The answers for a backbone count what the rules conclude, and say nothing without controls."""

import pandas as pd
import pytest

from safety_regions.report.constraint import constraint_rows
from safety_regions.report.pages.behaviour_answers import behaviour_answers as answers
from tests.report.test_constraint import table

CELL = {"backbone": "llama", "selection": "row-0.05", "refinement": "raw"}
NOTHING = pd.DataFrame()


def effect(method, more="random", not_more="", unknown="", operation="base", dose=1.0, refused=0.5):
    return CELL | {
        "method": method, "operation": operation, "dose": dose, "more": more, "not_more": not_more,
        "unknown": unknown, "refused": refused, "refused_before": 0.9,
    }  # fmt: skip


def test_regions_that_exceed_every_control_are_counted_and_named():
    rows = pd.DataFrame(
        [
            effect("snip", refused=0.2),
            effect("snip", dose=0.5, not_more="random", more=""),  # a smaller dose does not count
            effect("wanda", more="random", not_more="change", refused=0.7),
            effect("safelayer", more="", unknown="random"),  # of which nothing is known
        ]
    )
    assert answers(rows, NOTHING) == {
        "llama": [
            "Needed? Reset to the model before alignment, 1 of 2 kinds of region take away more of the log-odds of "
            "refusing than every control (snip row-0.05 raw). Refused harmful prompts go from 0.90 to between 0.20 and "
            "0.70."
        ]
    }


def test_one_region_is_named_and_nothing_is_said_without_controls():
    [said] = answers(pd.DataFrame([effect("snip", operation="transplant")]), NOTHING)["llama"]
    assert said.startswith(
        "Enough? Transplanted into the model before alignment, snip row-0.05 raw does bring more"
    )
    [said] = answers(pd.DataFrame([effect("snip", more="", not_more="random")]), NOTHING)["llama"]
    assert "snip row-0.05 raw does not take away more" in said
    [said] = answers(pd.DataFrame([effect("snip", more="")]), NOTHING)["llama"]
    assert said == "Needed? Nothing can be said: no control with enough draws."


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (
            [{}],
            "in 1 of 1 comparisons (a region, an arm, a learning rate; plans plain). "
            "In every comparison of theirs: snip",
        ),
        ([{"region": 1.0}], "Not by any that was tested: more refusals were kept"),
        (
            [{}, {"region": 1.0}],
            "Not in general: more refusals were kept than with every control, and the task was",
        ),
        ([{"free": 5.0, "region": 5.0}], "Not answered: free training does not lower refusals."),
        ([{"seeds": 2}], "Not answered: it takes three seeds and controls."),
        # What does not attack refusals is not counted.
        ([{}, {"free": 5.0, "region": 5.0}], "in 1 of 1 comparisons"),
    ],
)
def test_constraints(runs, words):
    plans = [table(**run).assign(plan=f"plain{n or ''}") for n, run in enumerate(runs)]
    [said] = answers(NOTHING, constraint_rows(pd.concat(plans)))["llama"]
    assert said.startswith("Can safety be ensured by constraining a region? ") and words in said


def test_training_that_teaches_refusals_is_told_apart():
    lessons = constraint_rows(table(attack="refuse", region=8.0, control=6.0))
    assert answers(NOTHING, lessons)["llama"] == [
        "Trained to refuse, a region raises refusals more than every control in 1 of 1 comparisons."
    ]
