"""Numbers of prompts and shares of common prompts must be those of a literal count over prompts and pairs."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.formats.contracts import OVERLAP
from safety_regions.formats.parquet import conform
from safety_regions.overlap.membership import count_membership, used_prompts
from safety_regions.overlap.prompts import with_prompts
from safety_regions.prompts.sharing import shared_prompts
from tests.overlap.memberships import draw_regions, membership_of, write_regions
from tests.overlap.test_iou import compute_overlap
from tests.prompts.cards import prompts_table
from tests.prompts.test_sharing import near

SETS = ("a2", "b1", "c0")
texts = st.lists(st.sampled_from(["one prompt", "One  prompt", "another", "a third one", "x"]), max_size=8)
# Which of a set's prompts its region was found with: any, as a choice by the responses can be.
used = st.lists(st.booleans(), min_size=8, max_size=8)


@pytest.fixture(scope="module")
def overlap(tmp_path_factory):
    return compute_overlap(membership_of(tmp_path_factory.mktemp("regions"), draw_regions(1, 3)))


@given(st.tuples(texts, texts, texts), st.tuples(used, used, used))
def test_they_are_those_of_the_definition(overlap, given_texts, given_used):
    sets = dict(zip(SETS, given_texts, strict=True))
    chosen = {
        name: [i for i in range(len(sets[name])) if flags[i]]
        for name, flags in zip(SETS, given_used, strict=True)
    }
    ids = {name: [f"{name}/{i}" for i in found] for name, found in chosen.items()}
    shared = shared_prompts({name: prompts_table(name, found) for name, found in sets.items()})
    found = with_prompts(overlap, ids, shared)
    assert conform(found, OVERLAP).equals(found) and found.drop_columns(
        ["n_smallest", "n_largest", "shared"]
    ).equals(overlap.drop_columns(["n_smallest", "n_largest", "shared"]))
    for row in found.to_pylist():
        names = row["combination"].split(" & ")
        counts = [len(ids[name]) for name in names]
        assert (row["n_smallest"], row["n_largest"]) == (min(counts), max(counts))
        if len(names) == 3:
            assert row["shared"] is None
            continue
        matched = [
            {
                pair[place]
                for pair in product(*(chosen[n] for n in names))
                if near(*(sets[n][i] for n, i in zip(names, pair, strict=True)))
            }
            for place in (0, 1)
        ]
        shares = [len(m) / n for m, n in zip(matched, counts, strict=True) if n == min(counts) > 0]
        assert row["shared"] == pytest.approx(max(shares, default=0))


def test_a_match_that_was_not_used_does_not_count(overlap):
    """A prompt that b drops, because a has it too, is no longer shared although a still uses it."""
    shared = shared_prompts({n: prompts_table(n, ["the same prompt", f"only in {n} {n}"]) for n in SETS})
    both = {name: [f"{name}/0", f"{name}/1"] for name in SETS}
    dropped = {**both, "b1": ["b1/1"]}
    for ids, expected in ((both, 0.5), (dropped, 0.0)):
        rows = with_prompts(overlap, ids, shared).to_pylist()
        assert {r["shared"] for r in rows if r["combination"] == "a2 & b1"} == {expected}


def test_unknown_prompts_stay_unknown(overlap):
    shared = shared_prompts({name: prompts_table(name, ["x"]) for name in SETS})
    rows = with_prompts(overlap, {"a2": ["a2/0"], "b1": ["b1/0"]}, shared).to_pylist()
    for row in rows:
        known = "c0" not in row["combination"]
        assert (row["n_smallest"] is not None) == (row["n_largest"] is not None) == known
        assert (row["shared"] is not None) == known


def test_the_ids_come_from_the_region_files(tmp_path):
    regions = draw_regions(2, 2)
    for name, region in regions.items():
        region.metadata["prompts_used"] = [f"{name}/3", f"{name}/1"]
        write_regions(tmp_path, {name: region})
    paths = {name: tmp_path / f"{name}.safetensors" for name in regions}
    expected = {name: [f"{name}/3", f"{name}/1"] for name in regions}
    assert used_prompts(paths) == count_membership(paths).metadata["prompts"] == expected
    plain = write_regions(tmp_path, draw_regions(2, 2))
    assert used_prompts(plain) == {}
