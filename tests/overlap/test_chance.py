"""Chance must be the expected intersection of random regions of the same sizes over their expected union."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.formats.region import Region
from safety_regions.overlap.chance import STRATA, densities, expect
from safety_regions.overlap.iou import compute_overlap
from safety_regions.regions.refine import subtract_region
from tests.overlap.memberships import membership_of
from tests.regions.small_regions import METADATA, region_of

SHAPES = {"layers.0.q": (12, 9), "layers.0.k": (5, 7), "layers.1.q": (10, 10)}
STRATUM = {"row": str, "matrix": str, "layer": lambda where: where.split(".")[1], "global": lambda where: ""}


def redraw(rng, region, excluded, scope):
    """Return a random region with the same number of units in each stratum, from the units that are not excluded."""
    flags = {where: np.zeros(shape, bool) for where, shape in SHAPES.items()}
    for stratum in {STRATUM[scope](where) for where in SHAPES}:
        inside = [where for where in SHAPES if STRATUM[scope](where) == stratum]
        free = [(where, i) for where in inside for i in np.flatnonzero(~excluded.flags(where))]
        k = sum(region.selected_at[where] for where in inside)
        for j in rng.choice(len(free), k, replace=False):
            flags[free[j][0]].flat[free[j][1]] = True
    return flags


@pytest.mark.parametrize("scope", STRATA)
def test_chance_is_what_random_regions_give(tmp_path, scope):
    rng = np.random.default_rng(7)
    utility = region_of(rng, 0.3, SHAPES, name="u", scope=scope)
    raw = {
        name: region_of(rng, density, SHAPES, scope=scope)
        for name, density in (("a", 0.2), ("b", 0.4), ("c", 0.6))
    }
    regions = {name: subtract_region(region, utility) for name, region in raw.items()}
    overlap = compute_overlap(membership_of(tmp_path, regions))
    draws = [{n: redraw(rng, r, utility, scope) for n, r in regions.items()} for _ in range(300)]
    for row in overlap.to_pylist():
        inside = [
            where for where in SHAPES
            if row["layer"] in (None, int(where.split(".")[1])) and row["projection"] in (None, where.split(".")[2])
        ]  # fmt: skip
        names = row["combination"].split(" & ")
        stacks = [np.stack([np.concatenate([d[n][w].ravel() for w in inside]) for n in names]) for d in draws]
        common = np.array([s.all(0).sum() for s in stacks])
        covered = np.array([s.any(0).sum() for s in stacks])
        # The delta method gives the error of a ratio of means.
        ratio = common.mean() / covered.mean()
        error = (common - ratio * covered).std() / covered.mean() / np.sqrt(len(draws))
        assert abs(row["chance"] - ratio) < 4.5 * error + 1e-12


@given(st.floats(0.001, 1), st.integers(2, 6), st.sampled_from(list(STRATA)))
def test_equal_densities_give_the_closed_form(q, k, scope):
    """Chance must be q^k / (1 - (1 - q)^k) if every address has the same density q."""
    available = np.array([1000, 250, 4000])
    density = densities(scope, list(SHAPES), np.outer(np.full(k, q), available), available)
    found = expect(density, available)
    assert found.intersection.sum() / found.union.sum() == pytest.approx(q**k / (1 - (1 - q) ** k))


def test_where_the_size_is_held_matters():
    """Regions inside one matrix must share more units by chance if the scope fixes their size in a smaller stratum."""
    sizes, available = np.array([[10, 0, 0], [10, 0, 0]]), np.array([10, 10, 20])
    addresses = ["layers.0.q", "layers.0.k", "layers.1.q"]
    common = {
        scope: expect(densities(scope, addresses, sizes, available), available)[0].sum() for scope in STRATA
    }
    assert common == {"row": 10, "matrix": 10, "layer": 5, "global": 2.5}


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(STRATA)))
def test_a_density_is_the_units_of_a_stratum_over_those_available(seed, scope):
    rng = np.random.default_rng(seed)
    addresses = [f"layers.{i}.{p}" for i in rng.permutation(12)[: rng.integers(1, 5)] for p in "qkv"]
    available = rng.integers(0, 2**40, len(addresses)) * rng.integers(0, 2, len(addresses))
    sizes = rng.integers(0, 2**40, (rng.integers(1, 5), len(addresses)))
    found = densities(scope, addresses, sizes, available)
    assert found.shape == sizes.shape
    for d, units in enumerate(sizes.tolist()):
        for at, where in enumerate(addresses):
            inside = [
                i for i, other in enumerate(addresses) if STRATUM[scope](other) == STRATUM[scope](where)
            ]
            assert found[d, at] == sum(units[i] for i in inside) / max(sum(available[inside].tolist()), 1)


def test_nothing_available_gives_nothing():
    density = densities("matrix", ["layers.0.q"], np.zeros((2, 1)), np.zeros(1))
    assert expect(density, np.zeros(1)) == (0, 0)


def test_chance_of_full_regions_is_one(tmp_path):
    full = Region.pack({where: np.ones(shape, bool) for where, shape in SHAPES.items()}, METADATA)
    assert set(compute_overlap(membership_of(tmp_path, {"a": full, "b": full}))["chance"].to_pylist()) == {
        1.0
    }


def test_an_unknown_scope_is_refused():
    with pytest.raises(StudyError, match="unknown scope 'column'"):
        densities("column", ["layers.0.q"], np.ones((1, 1)), np.ones(1))
