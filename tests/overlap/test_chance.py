"""Chance must be the expected IoU of random regions of the same sizes."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.formats.region import Region
from safety_regions.overlap.chance import (
    DRAWS,
    TOLERANCE,
    Strata,
    densities,
    drawn_iou,
    expect,
    expected_iou,
    pair_iou,
    shared_law,
)
from safety_regions.overlap.iou import compute_overlap
from safety_regions.regions.refine import subtract_region
from safety_regions.units.addresses import STRATA
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
        iou = np.array([s.all(0).sum() / s.any(0).sum() for s in stacks])
        assert abs(row["chance"] - iou.mean()) < 4.5 * iou.std() / np.sqrt(len(draws)) + TOLERANCE


@given(st.floats(0.001, 1), st.integers(2, 6), st.sampled_from(list(STRATA)))
def test_equal_densities_give_the_closed_form(q, k, scope):
    """Chance must be q^k / (1 - (1 - q)^k) if every address has the same density q."""
    available = np.array([1000, 250, 4000])
    density = densities(scope, list(SHAPES), np.outer(np.full(k, q), available), available)
    found = expect(density, available)
    assert found.intersection.sum() / found.union.sum() == pytest.approx(q**k / (1 - (1 - q) ** k))


# Units, sizes of two regions -> E[IoU] to four digits, by enumeration of all pairs of regions (the first three) or
# independent simulation of a million pairs.
FEW = {
    (4, 1, 1): 0.25, (4, 2, 2): 0.3889, (4, 1, 2): 0.25, (8, 2, 2): 0.1786, (16, 1, 1): 0.0625, (16, 4, 4): 0.1575,
    (32, 3, 3): 0.0581, (32, 7, 7): 0.1298, (64, 2, 3): 0.0237,
}  # fmt: skip


@pytest.mark.parametrize("case", FEW)
def test_few_units_have_the_exact_expectation(case):
    units, n, m = case
    sizes, inside = np.array([[n], [m]]), np.ones((1, 1), bool)
    (chance,) = expected_iou("global", ["layers.0.q"], sizes, np.array([units]), [(0, 1)], inside)[0]
    assert chance == pytest.approx(FEW[case], abs=6e-4)
    ratio = expect(densities("global", ["layers.0.q"], sizes, np.array([units])), np.array([units]))
    assert abs(ratio.intersection.sum() / ratio.union.sum() - chance) > 1e-3, "the ratio would be wrong"


@given(st.integers(1, 9), st.data())
def test_the_pair_law_is_that_of_all_pairs_of_sets(units, data):
    n, m = data.draw(st.integers(1, units)), data.draw(st.integers(0, units))
    first = set(range(n))
    ious = [len(first & set(b)) / len(first | set(b)) for b in combinations(range(units), m)]
    assert pair_iou((((n, m), units, units),)) == pytest.approx(np.mean(ious))
    assert shared_law(units, n, m) @ np.arange(min(n, m) + 1) == pytest.approx(n * m / units)


strata_of_pairs = st.lists(
    st.integers(1, 3000).flatmap(
        lambda units: st.tuples(st.tuples(st.integers(0, units), st.integers(0, units)), st.just(units))
    ),
    min_size=1,
    max_size=4,
).filter(lambda strata: any(n + m for (n, m), _ in strata))


@given(strata_of_pairs)
def test_chance_is_exact_to_three_decimals_for_any_pair(strata):
    """Where the ratio of expectations is used, it differs from the exact law by less than the tolerance."""
    addresses = [f"layers.{i}.q" for i in range(len(strata))]
    sizes, available = np.array([pair for pair, _ in strata]).T, np.array([units for _, units in strata])
    inside = np.ones((1, len(strata)), bool)
    (chance,) = expected_iou("matrix", addresses, sizes, available, [(0, 1)], inside)[0]
    exact = pair_iou(tuple((pair, units, units) for pair, units in strata))
    assert abs(chance - exact) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 3, 1), (5, 5, 5, 5)])
@pytest.mark.parametrize(("whole", "part"), [(6, 6), (12, 6), (40, 7)])
def test_drawn_chance_is_what_random_sets_give(sizes, whole, part):
    """More than two regions, or a group that is a part of a stratum; draws with an empty union do not count."""
    rng, ious = np.random.default_rng(3), []
    while len(ious) < 4000:
        drawn = [set(rng.choice(whole, n, replace=False)) & set(range(part)) for n in sizes]
        if union := set.union(*drawn):
            ious.append(len(set.intersection(*drawn)) / len(union))
    found = drawn_iou(((sizes, whole, part),))
    # An IoU is at most 1, so its variance is at most its mean.
    error = np.sqrt(max(found, np.mean(ious)) * (1 / len(ious) + 1 / DRAWS))
    assert abs(found - np.mean(ious)) < 4.5 * error


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(20, 60), st.integers(1, 3), st.lists(st.floats(0.05, 0.6), min_size=3, max_size=3)),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_the_second_order_is_enough_where_it_is_used(drawn):
    """It agrees with draws of three regions, over whole strata or parts of them."""
    whole = np.array([units for units, _, _ in drawn])
    part = np.array([max(1, units // by) for units, by, _ in drawn])
    sizes = np.array([[max(1, round(p * units)) for p in shares] for units, _, shares in drawn]).T
    expected = expect(sizes / whole, part)
    ratio, union = (float(expected.intersection.sum() / expected.union.sum()), float(expected.union.sum()))
    if 10 * ratio > TOLERANCE * union**2:
        return
    found = Strata(sizes, whole, part).expected_iou([0, 1, 2], ratio, union)
    draws = drawn_iou(tuple(zip(map(tuple, sizes.T.tolist()), whole.tolist(), part.tolist(), strict=True)))
    error = np.sqrt(max(found, draws) / union / DRAWS)  # of the mean of IoUs of about `union` units
    assert abs(found - draws) < TOLERANCE + 5 * error


@given(
    st.integers(2, 5),
    st.lists(st.tuples(st.integers(50, 5000), st.integers(1, 20), st.data()), min_size=1, max_size=5),
)
def test_the_ratio_is_kept_only_where_the_second_order_is_small(k, drawn):
    whole = np.array([units for units, _, _ in drawn])
    part = np.array([max(1, units // by) for units, by, _ in drawn])
    sizes = np.array([[data.draw(st.integers(1, units)) for units, _, data in drawn] for _ in range(k)])
    expected = expect(sizes / whole, part)
    ratio, union = (float(expected.intersection.sum() / expected.union.sum()), float(expected.union.sum()))
    if 3 * ratio <= TOLERANCE * union:
        assert abs(Strata(sizes, whole, part)._second_order(sizes, ratio, union)) <= TOLERANCE


def test_the_chance_of_three_regions_is_drawn_where_units_are_few():
    sizes, inside = np.array([[1], [1], [1]]), np.ones((1, 1), bool)
    (chance,) = expected_iou("global", ["layers.0.q"], sizes, np.array([4]), [(0, 1, 2)], inside)[0]
    assert chance == pytest.approx(1 / 16, abs=0.006), "all three choose the same one of four"


def test_populations_beyond_numpys_limit_are_drawn_too():
    found = drawn_iou((((4, 4), 3 * 10**9, 10**9),))
    assert found == pytest.approx(0, abs=1e-3)


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
