"""Effects against a literal computation; p-values and intervals hold what they promise in simulations."""

import numpy as np
import pandas as pd
import pytest

from safety_regions.behaviour.effects import (
    ALL,
    Effects,
    compare,
    effects_of_cell,
    holm,
    permutation_p,
    t_interval,
    wilson,
)

ROLES = {"fraud": "harmful", "weapons": "harmful", "everyday": "ordinary"}


def table(arms, values):
    """Rows of an ablation: ``arms``: (operation, dose, control, of, draw); ``values(arm, dataset, i)`` of prompt i."""
    return pd.DataFrame(
        {
            **dict(zip(("operation", "dose", "control", "of", "draw"), arm, strict=True)),
            "evaluated": dataset,
            "prompt_id": f"{dataset}/{i}",
            "measure": "refusal_log_odds",
            "value": values(arm, dataset, i),
        }
        for arm in arms
        for dataset in ROLES
        for i in range(6)
    )


def study(effect=-2.0, draws=19, seed=0):
    """A region with a known effect on harmful prompts, and controls without one."""
    rng = np.random.default_rng(seed)
    start, region = ("scale", 1.0, "none", "", 0), ("base", 1.0, "region", "", 0)
    arms = [start, region, ("base", 1.0, "magnitude", "", 0)]
    arms += [("base", 1.0, "random", "", draw) for draw in range(1, draws + 1)]
    before = {(d, i): rng.normal() for d in ROLES for i in range(6)}

    def values(arm, dataset, i):
        moved = effect * (arm == region) * (ROLES[dataset] == "harmful")
        return before[dataset, i] + moved + (0 if arm == start else rng.normal(scale=0.1))

    return table(arms, values)


def test_effects_are_paired_by_prompt():
    arms = study()
    rows = {
        row["against"]: row
        for row in compare({"a": Effects(arms, ROLES, ())}, "base", 1.0, "refusal_log_odds", "harmful")
    }
    value = arms.set_index(["control", "draw", "prompt_id"])["value"]
    harmful = [p for p in value["region", 0].index if not p.startswith("everyday")]
    own = np.array([value["region", 0, p] - value["none", 0, p] for p in harmful])
    random = np.array(
        [np.mean([value["random", d, p] for d in range(1, 20)]) - value["none", 0, p] for p in harmful]
    )
    assert rows["none"]["n"] == 12
    assert rows["none"]["effect"] == pytest.approx(own.mean())
    assert rows["random"]["difference"] == pytest.approx((own - random).mean())
    assert rows["random"]["draws"] == 19
    assert rows["random"]["p"] == 0.05
    assert rows["magnitude"]["draws"] == 0
    assert rows["magnitude"]["p"] is None
    assert rows["none"]["changed"] == pytest.approx(value["region", 0][harmful].mean())


def test_a_region_without_an_effect_is_like_its_controls():
    rows = compare({"a": Effects(study(effect=0.0), ROLES, ())}, "base", 1.0, "refusal_log_odds", "harmful")
    assert {row["against"]: row.get("p") for row in rows}["random"] > 0.05


def test_datasets_and_roles_are_evaluated():
    tested = {place[-1] for place in Effects(study(), ROLES, ()).tested()}
    assert tested == {*ROLES, "harmful", "ordinary"}


def test_transplants_are_compared_with_the_base_model():
    start, base = ("scale", 1.0, "none", "", 0), ("transplant", 0.0, "none", "", 0)
    region = ("transplant", 1.0, "region", "", 0)
    levels = {start: 5.0, base: 1.0, region: 3.0}
    arms = table(list(levels), lambda arm, dataset, i: levels[arm] + i)
    [row] = compare(
        {"a": Effects(arms, ROLES, ["transplant"])}, "transplant", 1.0, "refusal_log_odds", "fraud"
    )
    assert row["effect"] == pytest.approx(2.0)
    assert row["unmodified"] == pytest.approx(1.0 + 2.5)


@pytest.mark.slow
def test_the_mean_over_sets_averages_regions_and_draws():
    cells = {name: Effects(study(seed=seed), ROLES, ()) for seed, name in enumerate(("a", "b"))}
    rows = [r for r in effects_of_cell(cells) if r["evaluated"] == "harmful" and r["against"] == "random"]
    found = {row["name"]: row for row in rows}
    assert found[ALL]["effect"] == pytest.approx((found["a"]["effect"] + found["b"]["effect"]) / 2)
    assert found[ALL]["p"] == 0.05
    assert found["a"]["p_holm"] == pytest.approx(0.1)
    assert "p_holm" not in found[ALL]


def test_a_core_is_compared_with_random_parts_of_its_size():
    """Not the whole region, which is larger than they are and would do more for that reason alone."""
    start, region, core = (
        ("scale", 1.0, "none", "", 0),
        *(("base", 1.0, c, "", 0) for c in ("region", "core")),
    )
    levels = {start: 0.0, region: -5.0, core: -1.0}
    parts = [("base", 1.0, "core_part", "", draw) for draw in range(1, 20)]
    levels |= {arm: -1.0 - 0.1 * (arm[-1] - 10) for arm in parts}
    arms = table(list(levels), lambda arm, dataset, i: levels[arm])
    rows = {
        r["against"]: r
        for r in compare({"a": Effects(arms, ROLES, ())}, "base", 1.0, "refusal_log_odds", "fraud")
    }
    assert rows["none"]["effect"] == rows["core"]["effect"] == -5.0
    assert rows["core"]["control_effect"] == -1.0
    assert rows["core_part"]["effect"] == -1.0
    assert rows["core_part"]["difference"] == pytest.approx(0.0)
    # Ten of nineteen parts have at least as large an effect: (1 + 10) / 20.
    assert rows["core_part"]["p"] == 0.55


def test_p_values_have_their_size_and_power():
    """Without an effect p <= 0.05 in at most one of twenty studies; with a large one, always."""
    rng = np.random.default_rng(0)
    null = [permutation_p(d[0], d[1:]) for d in rng.normal(size=(4000, 20))]
    assert np.mean(np.array(null) <= 0.05) == pytest.approx(0.05, abs=0.011)
    shifted = [permutation_p(d[0] + 6, d[1:]) for d in rng.normal(size=(200, 20))]
    assert np.mean(np.array(shifted) <= 0.05) > 0.95
    assert permutation_p(1.0, []) is None
    assert permutation_p(-3.0, [1.0, -2.0, 4.0]) == 0.5


def test_t_intervals_cover():
    rng = np.random.default_rng(0)
    found = [t_interval(values) for values in rng.normal(2, 1, size=(2000, 8))]
    assert np.mean([i.low < 2 < i.high for i in found]) == pytest.approx(0.95, abs=0.015)
    assert np.isnan(t_interval(np.array([1.0])).low)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (1, 40, 0.0044, 0.1288)],
)
def test_wilson_intervals_are_those_of_the_tables(k, n, low, high):
    rate, *ends = wilson(k, n)
    assert rate == k / n
    assert ends == pytest.approx([low, high], abs=5e-4)


def test_holm_is_that_of_the_definition():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    rng = np.random.default_rng(0)
    errors = [min(holm(rng.random(8).tolist())) <= 0.05 for _ in range(4000)]
    assert np.mean(errors) == pytest.approx(0.05, abs=0.012)
