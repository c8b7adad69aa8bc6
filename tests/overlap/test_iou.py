"""Overlaps from pattern counts must equal the overlaps of the sets themselves."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_regions.formats.contracts import MEMBERSHIP, OVERLAP
from safety_regions.formats.parquet import conform, write_table
from safety_regions.formats.region import Region
from safety_regions.overlap.iou import JOIN, choose_teams, compute_overlap, iou_matrix
from safety_regions.overlap.membership import read_membership, region_totals
from safety_regions.units.addresses import parse_address
from tests.overlap.memberships import draw_regions, membership_of
from tests.regions.small_regions import region_of, units

FEW = {
    "seed": st.integers(0, 2**32 - 1),
    "n": st.integers(2, 5),
    "granularity": st.sampled_from(["weight", "neuron", "head", "layer"]),
}


def levels(region):
    """Return (level, layer, projection) -> the addresses inside."""
    found = {("model", None, None): set(region.shapes)}
    for where in region.shapes:
        layer, projection = parse_address(where)
        if projection:
            found.setdefault(("layer", layer, None), set()).add(where)
            found.setdefault(("projection", None, projection), set()).add(where)
    return found


def literal(regions):
    """Return the measured columns of an overlap table, computed with Python sets."""
    found = {}
    for level, inside in levels(next(iter(regions.values()))).items():
        sets = {name: {u for u in units(region) if u[0] in inside} for name, region in regions.items()}
        for k in range(2, len(sets) + 1):
            for team in combinations(sorted(sets), k):
                members = [sets[name] for name in team]
                common, covered = set.intersection(*members), set.union(*members)
                iou = len(common) / len(covered) if covered else None
                size = sorted(map(len, members))
                found[JOIN.join(team), k, *level] = (len(common), len(covered), iou, size[0], size[-1])
    return found


def by_key(overlap):
    rows = overlap.to_pylist()
    keys = ("combination", "k", "level", "layer", "projection")
    return {tuple(row[key] for key in keys): row for row in rows}


def measured(overlap):
    names = ("intersection", "union", "iou", "smallest", "largest")
    return {key: tuple(row[name] for name in names) for key, row in by_key(overlap).items()}


@settings(max_examples=40, deadline=None)
@given(**FEW)
def test_overlaps_are_those_of_the_sets(tmp_path_factory, seed, n, granularity):
    regions = draw_regions(seed, n, granularity, "global")
    overlap = compute_overlap(membership_of(tmp_path_factory.mktemp("m"), regions))
    assert measured(overlap) == literal(regions)
    assert overlap.num_rows == len(literal(regions))
    assert overlap["floor"].null_count == overlap["ceiling"].null_count == overlap.num_rows
    assert conform(overlap, OVERLAP).equals(overlap)


def test_overlaps_of_an_adapters_factors_have_a_level_each(tmp_path):
    inside = {"q.A": (2, 9), "q.B": (7, 2), "v.B": (3, 2)}
    shapes = {f"layers.{layer}.{factor}": shape for layer in (0, 3) for factor, shape in inside.items()}
    regions = draw_regions(5, 3, shapes=shapes)
    membership = membership_of(tmp_path, regions)
    write_table(tmp_path / "membership.parquet", membership.table, MEMBERSHIP, membership.metadata)
    overlap = compute_overlap(read_membership(tmp_path / "membership.parquet"))
    assert measured(overlap) == literal(regions)
    assert set(overlap["projection"].to_pylist()) == {None, *inside}


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 6))
def test_more_names_share_less_and_cover_more(tmp_path_factory, seed, n):
    found = measured(compute_overlap(membership_of(tmp_path_factory.mktemp("m"), draw_regions(seed, n))))
    for (combination, k, *level), (common, covered, *_) in found.items():
        for name in combination.split(JOIN) if k > 2 else ():
            fewer = JOIN.join(other for other in combination.split(JOIN) if other != name)
            assert common <= found[fewer, k - 1, *level][0] and covered >= found[fewer, k - 1, *level][1]


def test_identical_regions_overlap_fully_and_disjoint_ones_not_at_all(tmp_path):
    region = region_of(np.random.default_rng(0))
    inverse = Region.pack({where: ~region.flags(where) for where in region.shapes}, region.metadata)
    regions = {"a": region, "b": region, "c": inverse}
    for key, row in by_key(compute_overlap(membership_of(tmp_path, regions))).items():
        assert row["iou"] == (1.0 if key[0] == "a & b" else 0.0)


def test_an_overlap_of_empty_regions_is_undefined(tmp_path):
    nothing = region_of(np.random.default_rng(0), density=0.0)
    overlap = compute_overlap(membership_of(tmp_path, {"a": nothing, "b": nothing}))
    assert overlap["iou"].null_count == overlap["chance"].null_count == overlap.num_rows


def test_a_single_region_overlaps_with_nothing(tmp_path):
    membership = membership_of(tmp_path, draw_regions(1, 1))
    overlap = compute_overlap(membership)
    assert (overlap.num_rows, overlap.schema) == (0, OVERLAP.schema)
    assert iou_matrix(overlap, region_totals(membership)).shape == (1, 1)


@pytest.mark.parametrize("granularity", ["weight", "layer"])
def test_a_stored_membership_gives_the_same_overlaps(tmp_path, granularity):
    """The order of stored metadata must not matter: its keys are sorted, so that layers.10 precedes layers.2."""
    membership = membership_of(tmp_path, draw_regions(0, 4, granularity, "global"))
    write_table(tmp_path / "m.parquet", membership.table, MEMBERSHIP, membership.metadata)
    assert compute_overlap(read_membership(tmp_path / "m.parquet")).equals(compute_overlap(membership))


def test_up_to_twelve_names_give_every_combination_and_more_names_give_some():
    assert choose_teams(4) == [t for k in (2, 3, 4) for t in combinations(range(4), k)]
    assert len(choose_teams(12)) == 2**12 - 12 - 1
    many = choose_teams(13)
    assert len(set(many)) == len(many) and many == sorted(many, key=len)
    assert set(combinations(range(13), 2)) | set(combinations(range(13), 12)) < set(many)
    assert {t for t in many if 2 < len(t) < 12} == {tuple(range(k)) for k in range(3, 12)}
    assert many[-1] == tuple(range(13))


def test_thirteen_regions_overlap_as_their_sets_do(tmp_path):
    regions = draw_regions(5, 13, shapes={"layers.0.q": (6, 11)})
    held = {name: units(region) for name, region in regions.items()}
    found = by_key(compute_overlap(membership_of(tmp_path, regions)))
    assert len(found) == 3 * len(choose_teams(13))
    for (combination, *_), row in found.items():
        members = [held[name] for name in combination.split(JOIN)]
        assert row["intersection"] == len(set.intersection(*members))
        assert row["union"] == len(set.union(*members))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 5))
def test_the_matrix_is_square_and_symmetric(tmp_path_factory, seed, n):
    regions = draw_regions(seed, n)
    membership = membership_of(tmp_path_factory.mktemp("m"), regions)
    matrix = iou_matrix(compute_overlap(membership), region_totals(membership))
    held = [units(region) for region in regions.values()]
    expected = [[len(a & b) / len(a | b) if a | b else np.nan for b in held] for a in held]
    assert np.array_equal(matrix, expected, equal_nan=True)


def test_rows_of_a_table_may_come_in_chunks(tmp_path):
    membership = membership_of(tmp_path, draw_regions(3, 3))
    overlap = compute_overlap(membership)
    chunks = pa.concat_tables([overlap.slice(0, 3), overlap.slice(3)])
    sizes = region_totals(membership)
    assert np.array_equal(iou_matrix(chunks, sizes), iou_matrix(overlap, sizes), equal_nan=True)
