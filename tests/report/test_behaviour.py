"""What is said of regions follows from the effects: nothing without controls, and more only beyond all of them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from safety_regions.behaviour.effects import Effects, effects_of_cell
from safety_regions.formats.contracts import ABLATION, EFFECTS
from safety_regions.report.behaviour import (
    behaviour_rows,
    beyond,
    conclusion,
    direction,
    main_rows,
    measure_ranks,
)
from safety_regions.report.figures.behaviour import draw_behaviour
from safety_regions.report.pages.behaviour import behaviour_page
from tests.behaviour.test_effects import ROLES, study
from tests.report.shown import marks

CELL = {"backbone": "llama", "method": "snip", "selection": "row-0.05", "refinement": "raw"}
INTO_BASE = {"base": False, "transplant": True, "scale": False, "zero": False}
NOTHING = pd.DataFrame()
NO_RANKS = measure_ranks(pd.DataFrame([], columns=ABLATION.schema.names))
TITLES = {"base": "reset to the base model"}


def effects(*cells):
    named = {name: Effects(arms, ROLES, ()) for name, arms in zip("ab", cells, strict=False)}
    rows = [CELL | row for row in effects_of_cell(named)]
    return pa.Table.from_pylist(rows, EFFECTS.schema).to_pandas()


def rows(*cells):
    return behaviour_rows(effects(*cells), INTO_BASE)


def test_an_effect_beyond_all_controls_is_said_to_be():
    [row] = rows(study(effect=-2.0)).to_dict("records")
    assert row["conclusion"] == "the effect is larger than that of every control"
    assert (row["more"], row["not_more"], row["draws"]) == ("magnitude, random", "", 19)
    assert row["effect"] == pytest.approx(-2.0, abs=0.1)
    assert row["random_low"] <= row["random"] <= row["random_high"]


def test_no_effect_is_not_more():
    [row] = rows(study(effect=0.0)).to_dict("records")
    assert row["conclusion"].startswith(
        "the effect is not larger than that of the largest weights and random regions"
    )


def test_an_effect_in_the_wrong_direction_is_not_more():
    [row] = rows(study(effect=2.0)).to_dict("records")
    assert row["not_more"] == "magnitude, random"


def test_too_few_draws_say_nothing_of_random_regions():
    [row] = rows(study(effect=-2.0, draws=8)).to_dict("records")
    assert row["unknown"] == "random"
    assert (
        row["conclusion"]
        == "the effect is larger than that of the largest weights; too few draws of random regions"
    )


def test_without_controls_nothing_is_said():
    arms = study(effect=-2.0)
    [row] = rows(arms[arms["control"].isin(["none", "region"])]).to_dict("records")
    assert row["conclusion"] == "nothing can be said: no control with enough draws"
    assert (
        "nothing can be said"
        in behaviour_page(pd.DataFrame([row]), transfer(), TITLES, NOTHING, NO_RANKS).lower()
    )


@pytest.mark.slow
def test_the_mean_over_sets_is_shown_where_there_are_several():
    shown = main_rows(effects(study(), study(seed=1)))
    assert set(shown["name"]) == {"all"}
    assert set(main_rows(effects(study()))["name"]) == {"a"}


@pytest.mark.parametrize(
    ("operation", "dose", "sign"),
    [("base", 1.0, -1), ("zero", 1.0, -1), ("transplant", 1.0, 1), ("scale", 1.5, 1), ("scale", 0.5, -1)],
)
def test_directions(operation, dose, sign):
    assert direction(operation, dose, INTO_BASE) == sign


@pytest.mark.slow
def test_false_claims_are_rare():
    """If the region is one more random draw, it is said to do more in at most one of twenty studies."""
    rng, claims, n = np.random.default_rng(0), 0, 300
    for _ in range(n):
        drawn = rng.normal(size=20)
        frame = pd.DataFrame(
            [
                {
                    "against": "random", "effect": drawn[0], "draws": 19, "difference": drawn[0] - drawn[1:].mean(),
                    "p": (1 + np.sum(np.abs(drawn[1:]) >= abs(drawn[0]))) / 20,
                }
            ]
        )  # fmt: skip
        claims += conclusion(beyond(frame, -1)) == "the effect is larger than that of every control"
    assert claims / n <= 0.05


def transfer():
    row = {
        "operation": "base", "dose": 1.0, "measure": "refusal_log_odds", "sets": 2, "own": -2.0, "others": -1.0,
        "own_advantage": -1.0, "own_p": 0.5, "mantel": None, "mantel_p": None,
    }  # fmt: skip
    return pd.DataFrame([CELL | row])


@pytest.mark.slow
def test_the_page_shows_effects_and_transfer():
    page = behaviour_page(rows(study(), study(seed=1)), transfer(), TITLES, NOTHING, NO_RANKS)
    assert "With the region reset to the base model (dose 1)" in page
    assert "The effect is larger than that of every control." in page
    assert "<td>base 1</td>" in page and "Transfer between sets" in page
    assert "no model was\nfine-tuned" in page


def test_the_figure_has_a_panel_for_harmful_and_one_for_ordinary_prompts():
    figure = draw_behaviour(effects(study(), study(seed=1)), "llama / snip / row-0.05")
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == 3 and titles[0].startswith("raw: harmful prompts")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["base\n1"]


@pytest.mark.slow
def test_the_plane_shows_what_fewer_refusals_cost():
    odds = effects(study(), study(seed=1))
    numbers = ["effect", "control_effect"]
    answers = odds.assign(measure="answer_nll", evaluated="ordinary", **(odds[numbers] / -2))
    table = pd.concat([odds[odds["evaluated"] == "harmful"], answers[odds["evaluated"] == "harmful"]])
    plane = draw_behaviour(table, "llama / snip / row-0.05").axes[2]
    rows = main_rows(table)

    def value(measure, role, against, column):
        one = rows[(rows["measure"] == measure) & (rows["evaluated"] == role) & (rows["against"] == against)]
        return one[column].item()

    for against, column, marker in (("none", "effect", "o"), ("magnitude", "control_effect", "^")):
        x, y = (
            value(measure, role, against, column)
            for measure, role in (("answer_nll", "ordinary"), ("refusal_log_odds", "harmful"))
        )
        shown = [m for m in marks(plane, marker=marker) if m == pytest.approx([x, y])]
        assert len(shown) == 1


def ablation(odds, refused, backbone="llama"):
    """The means of changed models, a draw each; a model without a refusal rate generated no answers."""
    rows = []
    for draw, values in enumerate(zip(odds, refused, strict=True)):
        arm = {"name": "fraud", "operation": "base", "dose": 1.0, "control": "random", "of": "", "draw": draw}
        for measure, value in zip(("refusal_log_odds", "refused"), values, strict=True):
            if value is not None:
                row = {"evaluated": "harmful", "measure": measure, "value": value, "n": 10}
                rows.append({**CELL, "backbone": backbone} | arm | row)
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_measures_are_ranked_against_generated_refusals():
    table = pd.concat(
        [
            ablation([1.0, 2.0, 3.0, 9.0, 0.0], [0.1, 0.3, 0.2, 0.9, None]),
            ablation([1.0, 2.0], [0.1, 0.3], backbone="few"),
            ablation([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], backbone="constant"),
        ]
    )
    rows = measure_ranks(table).set_index("backbone")
    assert rows["models"].to_dict() == {"llama": 4, "few": 2, "constant": 3}
    assert rows.loc["llama", "spearman"] == pytest.approx(0.8)  # one swapped pair of neighbours of four
    assert rows["spearman"].isna().to_dict() == {"llama": False, "few": True, "constant": True}
    page = behaviour_page(rows_of_two(), transfer(), TITLES, NOTHING, measure_ranks(table))
    assert "<td>llama</td>" in page and "0.80" in page


def rows_of_two():
    return rows(study(), study(seed=1))


def test_the_model_without_the_direction_is_shown_and_decides_nothing():
    """Its effect is as large as the region's here; were it a control, the region would not do more than it."""
    arms = study(effect=-2.0)
    directed = arms[arms["control"] == "region"].assign(control="direction")
    with_it = effects(pd.concat([arms, directed], ignore_index=True))
    [row] = behaviour_rows(with_it, INTO_BASE).to_dict("records")
    [without] = rows(arms).to_dict("records")
    assert row["conclusion"] == without["conclusion"] == "the effect is larger than that of every control"
    assert row["without_direction"] == row["effect"] and np.isnan(without["without_direction"])
    pages = [
        behaviour_page(pd.DataFrame([one]), transfer(), TITLES, NOTHING, NO_RANKS) for one in (row, without)
    ]
    assert ["without the direction" in page for page in pages] == [True, False]
    legend = [text.get_text() for text in draw_behaviour(with_it, "llama").legends[0].texts]
    assert "direction" in legend


@pytest.mark.slow
def test_judges_and_tasks_have_a_column_where_there_are_any():
    odds = effects(study(), study(seed=1))
    harmful = odds[(odds["measure"] == "refusal_log_odds") & (odds["evaluated"] == "harmful")]
    judged = harmful.assign(measure="harm-strict", unmodified=0.1, changed=0.75)
    [row] = behaviour_rows(pd.concat([odds, judged]), INTO_BASE).to_dict("records")
    assert row["scored"] == "harm-strict 0.10 → 0.75"
    page = behaviour_page(pd.DataFrame([row]), transfer(), TITLES, NOTHING, NO_RANKS)
    assert "judges and tasks" in page and "harm-strict 0.10 → 0.75" in page
    plain = behaviour_page(rows_of_two(), transfer(), TITLES, NOTHING, NO_RANKS)
    assert "judges and tasks" not in plain
