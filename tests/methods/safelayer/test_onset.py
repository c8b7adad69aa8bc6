"""The rule for onset and plateau finds ranges that were planted, at 4 layers and at 32."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.methods.safelayer.onset import find_growth

RULE = {"fraction": 0.5, "smoothing": 3}


@st.composite
def planted(draw):
    """A range of two layers or more within 4 to 40 layers."""
    n = draw(st.integers(4, 40))
    first = draw(st.integers(0, n - 2))
    return n, first, draw(st.integers(first + 1, n - 1))


@given(planted(), st.floats(0.01, 50), st.integers(0, 10**6))
def test_a_planted_growth_is_found(where, height, seed):
    n, first, last = where
    rises = np.zeros(n)
    rises[first : last + 1] = height
    rises += np.random.default_rng(seed).uniform(-0.1, 0.1, n) * height
    found = find_growth(rises, **RULE)
    assert found.span == (first, last)
    assert found.threshold == pytest.approx(found.largest / 2)


@given(planted(), st.floats(0.01, 100))
def test_the_unit_does_not_matter(where, factor):
    n, first, last = where
    rises = np.random.default_rng(first + 100 * last).normal(size=n)
    assert find_growth(rises, **RULE).span == find_growth(rises * factor, **RULE).span


@pytest.mark.parametrize("layer", [0, 2, 20, 30, 31])
def test_a_jump_of_one_layer_in_a_deep_model_is_no_growth(layer):
    rises = np.full(32, 0.1)
    rises[8:14] = 1.0
    rises[layer] = 40.0
    assert find_growth(rises, **RULE).span == (8, 13)


def test_a_shallow_model_is_not_smoothed():
    assert find_growth([0, 0, 5, 0], **RULE).span == (2, 2)
    assert find_growth([0] * 7 + [5] + [0] * 3, **RULE).span == (7, 7)
    assert find_growth([0, 3, 4, 1], **RULE).span == (1, 2)
    assert find_growth([2, 0, 1.5, 0], **RULE).span == (0, 0)


def test_the_plateau_ends_the_first_run_only():
    rises = np.zeros(16)
    rises[3:7] = rises[9:14] = 1.0
    assert find_growth(rises, **RULE).span == (3, 6)


@pytest.mark.parametrize("rises", [[0.0] * 8, [-1.0] * 8, [1e-9] * 8, [-0.7, 0.1, -0.3, 0.03]])
def test_a_gap_that_does_not_open_has_no_range(rises):
    assert find_growth(rises, **RULE).span is None


def test_a_run_that_only_makes_up_for_a_loss_opens_nothing():
    assert find_growth([-3, 2, 0, 0, 2.5, 0], **RULE).span == (4, 4)
