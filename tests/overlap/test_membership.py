"""Pattern counts must count every unit by the regions that contain it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import MEMBERSHIP
from safety_regions.formats.parquet import conform, write_table
from safety_regions.formats.region import write_region
from safety_regions.overlap.membership import (
    MOST_NAMES,
    Membership,
    count_membership,
    count_regions,
    read_membership,
    region_totals,
    sizes_at,
)
from safety_regions.regions.refine import subtract_region
from safety_regions.units.addresses import LAYERS, parse_address
from tests.overlap.memberships import draw_regions, membership_of, write_regions
from tests.regions.small_regions import SHAPES, region_of, units

MANY = {"seed": st.integers(0, 2**32 - 1), "n": st.integers(1, MOST_NAMES)}


def literal(regions):
    """Return (layer, projection, pattern) -> number of units, counted unit by unit."""
    held = [units(region) for region in regions.values()]
    first = next(iter(regions.values()))
    return Counter(
        (*parse_address(where), sum(1 << d for d, region in enumerate(held) if (where, i) in region))
        for where, n in first.units_at.items()
        for i in range(n)
    )


def rows(membership):
    keys = zip(
        *(membership.table[name].to_pylist() for name in ("layer", "projection", "pattern")), strict=True
    )
    return dict(zip(keys, membership.table["count"].to_pylist(), strict=True))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(**MANY, granularity=st.sampled_from(["weight", "neuron", "head", "layer"]))
def test_counting_is_literal(tmp_path_factory, seed, n, granularity):
    regions = draw_regions(seed, n, granularity)
    membership = membership_of(tmp_path_factory.mktemp("m"), regions)
    assert rows(membership) == literal(regions)
    in_memory = count_regions(regions)
    assert in_memory.table.equals(membership.table) and in_memory.metadata == membership.metadata
    assert sum(rows(membership).values()) == sum(membership.metadata["n_units"].values())
    assert region_totals(membership) == {name: region.n_selected for name, region in regions.items()}
    assert conform(membership.table, MEMBERSHIP).equals(membership.table)


@pytest.mark.slow
def test_more_units_than_a_block(tmp_path):
    """Counts must add up over three full blocks and a partial one, where only the last block has padding."""
    shape = {"layers.0.q": (3 * 512 + 1, 1023)}
    regions = draw_regions(0, 9, shapes=shape)
    flags = np.stack([region.flags("layers.0.q").ravel() for region in regions.values()])
    patterns = (flags.astype(np.int64) << np.arange(9)[:, None]).sum(0)
    expected = np.bincount(patterns)
    found = rows(membership_of(tmp_path, regions))
    assert found == {(0, "q", p): c for p, c in enumerate(expected.tolist()) if c}


def test_the_metadata_says_what_was_counted(tmp_path):
    metadata = membership_of(tmp_path, draw_regions(0, 3, scope="row")).metadata
    assert metadata["names"] == ["c0", "b1", "a2"]
    assert (metadata["scope"], metadata["granularity"]) == ("row", "weight")
    assert metadata["n_units"] == metadata["available"] == {w: int(np.prod(s)) for w, s in SHAPES.items()}


def test_refined_regions_have_fewer_available_units(tmp_path):
    utility = region_of(np.random.default_rng(9), name="u")
    refined = {n: subtract_region(r, utility) for n, r in draw_regions(0, 3).items()}
    membership = membership_of(tmp_path, refined)
    assert membership.metadata["available"] == {
        w: n - utility.selected_at[w] for w, n in utility.units_at.items()
    }
    assert membership.metadata["refinement"] == "minus-u"


@pytest.mark.parametrize("granularity", ["weight", "layer"])
def test_a_membership_survives_its_file(tmp_path, granularity):
    membership = membership_of(tmp_path, draw_regions(0, 4, granularity))
    write_table(
        tmp_path / "m.parquet", membership.table, MEMBERSHIP, {"backbone": "label", **membership.metadata}
    )
    again = read_membership(tmp_path / "m.parquet")
    assert rows(again) == rows(membership)
    assert np.array_equal(sizes_at(again), sizes_at(membership))
    assert again.metadata["names"] == membership.metadata["names"]


def test_counts_that_do_not_add_up_are_refused(tmp_path):
    table, metadata = membership_of(tmp_path, draw_regions(0, 4))
    write_table(tmp_path / "m.parquet", table.slice(1), MEMBERSHIP, metadata)
    with pytest.raises(StudyError, match="do not sum"):
        read_membership(tmp_path / "m.parquet")


OTHER = {
    "granularity": {"granularity": "neuron"},
    "backbone": {"backbone": "other"},
    "scope": {"scope": "row"},
    "refinement": {"refinement": "minus-u"},
    "shapes": {"shapes": {"layers.0.q": (3, 5)}},
}


@pytest.mark.parametrize("name", OTHER)
def test_regions_that_cannot_be_compared_are_refused(tmp_path, name):
    regions = {
        "a": region_of(np.random.default_rng(0)),
        "b": region_of(np.random.default_rng(0), **OTHER[name]),
    }
    with pytest.raises(StudyError, match=f"{tmp_path}/b.*(other|{name}|minus)"):
        membership_of(tmp_path, regions)


def test_regions_with_other_available_units_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    regions = [subtract_region(region_of(rng), region_of(rng, density, name="u")) for density in (0.1, 0.5)]
    with pytest.raises(StudyError, match="other numbers of available units"):
        membership_of(tmp_path, dict(zip("ab", regions, strict=True)))


@pytest.mark.parametrize("n", [0, MOST_NAMES + 1])
def test_too_many_regions_or_none_are_refused(tmp_path, n):
    region = region_of(np.random.default_rng(0))
    write_region(tmp_path / "r", region)
    with pytest.raises(StudyError, match=f"{n} regions"):
        count_membership({str(d): tmp_path / "r" for d in range(n)})


def test_a_damaged_region_is_not_counted(tmp_path):
    paths = write_regions(tmp_path, draw_regions(0, 3))
    content = bytearray(paths["b1"].read_bytes())
    content[-2] ^= 1  # a byte of layers.10.v; the last byte is layers.2.q
    paths["b1"].write_bytes(content)
    with pytest.raises(StudyError, match=r"b1\.safetensors: layers\.10\.v"):
        count_membership(paths)


def test_sizes_of_whole_layers(tmp_path):
    regions = draw_regions(1, 3, "layer")
    membership = membership_of(tmp_path, regions)
    assert isinstance(membership, Membership)
    assert sizes_at(membership).tolist() == [[r.selected_at[LAYERS]] for r in regions.values()]
