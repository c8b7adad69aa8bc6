"""Transfer: literal values on small matrices, and tests that keep their size."""

import numpy as np
import pytest

from safety_regions.behaviour.effects import Effects
from safety_regions.behaviour.transfer import (
    effect_matrix,
    mantel,
    own_advantage,
    own_p,
    transfer_of_cell,
    transfer_pairs,
)
from tests.behaviour.test_effects import table

ROLES = {"fraud": "harmful", "weapons": "harmful", "everyday": "ordinary"}


def test_an_advantage_of_the_own_set_is_found():
    effects = np.full((5, 5), -1.0) + np.diag([-2.0] * 5)
    assert own_advantage(effects) == pytest.approx(-2.0)
    assert own_p(effects) == pytest.approx(1 / 120)


def test_strong_regions_and_easy_sets_are_no_advantage():
    effects = -np.add.outer([1.0, 2, 3, 4], [0.0, 5, 1, 7])
    assert own_advantage(effects) == pytest.approx(0.0, abs=1e-12)
    assert own_p(effects) == 1.0


def test_the_test_of_the_own_set_keeps_its_size():
    rng = np.random.default_rng(0)
    p = np.array([own_p(effects) for effects in rng.normal(size=(400, 4, 4))])
    assert (p <= 0.1).mean() == pytest.approx(0.1, abs=0.05)


def symmetric(rng, k):
    matrix = rng.normal(size=(k, k))
    return matrix + matrix.T


def test_mantel_finds_equal_matrices():
    matrix = symmetric(np.random.default_rng(0), 5)
    r, p = mantel(matrix, 3 * matrix + 1)
    assert r == pytest.approx(1.0)
    assert p == pytest.approx(1 / 120)


@pytest.mark.slow
def test_mantel_keeps_its_size():
    rng = np.random.default_rng(0)
    p = np.array([mantel(symmetric(rng, 4), symmetric(rng, 4))[1] for _ in range(400)])
    assert (p <= 0.1).mean() == pytest.approx(0.1, abs=0.05)


def test_mantel_needs_four_sets_and_values():
    rng = np.random.default_rng(0)
    assert mantel(symmetric(rng, 3), symmetric(rng, 3)) is None
    assert mantel(np.ones((5, 5)), symmetric(rng, 5)) is None
    gaps = symmetric(rng, 5)
    gaps[0, 1] = np.nan
    assert mantel(gaps, symmetric(rng, 5)) is None


def measured(strong):
    """The effects of a region that changes the prompts of one set by -3 and those of the others by -1."""
    start, region = ("scale", 1.0, "none", "", 0), ("base", 1.0, "region", "", 0)
    arms = table([start, region], lambda arm, d, i: i - (arm == region) * (3.0 if d == strong else 1.0))
    return Effects(arms, ROLES, ())


def test_the_matrix_has_a_row_per_region():
    named = {"fraud": measured("fraud"), "weapons": measured("weapons")}
    effects, alike = effect_matrix(named, "base", 1.0, "refusal_log_odds")
    assert effects.tolist() == [[-3.0, -1.0], [-1.0, -3.0]]
    assert alike[0, 1] == pytest.approx(-1.0)
    [row] = transfer_of_cell(named, {("fraud", "weapons"): 0.3})
    assert (row["own"], row["others"], row["sets"]) == (-3.0, -1.0, 2)
    assert row["mantel"] is None


def test_what_was_not_measured_has_no_matrix():
    assert effect_matrix({"fraud": measured("fraud")}, "zero", 1.0, "kl") is None


def test_pairs_have_the_effect_of_each_region_on_each_set():
    named = {"fraud": measured("fraud"), "weapons": measured("weapons")}
    rows = transfer_pairs(named, {("fraud", "weapons"): 0.25})
    odds = [row for row in rows if row["measure"] == "refusal_log_odds"]
    assert [(r["region_of"], r["prompts_of"], r["effect"], r["iou"]) for r in odds] == [
        ("fraud", "fraud", -3.0, None),
        ("fraud", "weapons", -1.0, 0.25),
        ("weapons", "fraud", -1.0, 0.25),
        ("weapons", "weapons", -3.0, None),
    ]
    assert odds[1]["similarity"] == pytest.approx(-1.0) and odds[0]["similarity"] is None


def test_regions_without_an_overlap_have_no_iou():
    named = {"fraud": measured("fraud"), "weapons": measured("fraud")}
    rows = transfer_pairs(named, {("fraud", "weapons"): None})
    assert {row["iou"] for row in rows} == {None}
