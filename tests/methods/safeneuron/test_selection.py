"""Agreement is counting: for how many prompts a neuron ranks high, or matters enough."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import NEURON_SCORES
from safety_regions.formats.parquet import write_groups
from safety_regions.formats.region import write_region
from safety_regions.methods.safeneuron.selection import FRACTIONS, RULES, select_agreed
from safety_regions.overlap.chance import pair_iou
from safety_regions.overlap.iou import compute_overlap
from safety_regions.units.addresses import parse_address
from tests.overlap.memberships import membership_of
from tests.regions.small_regions import units

SIZES = {"layers.0.q": 8, "layers.0.up": 13, "layers.0.down": 13, "layers.10.v": 5}


def draw(seed, n_prompts, levels=4):
    """Importances of a few levels, so that many are equal: address -> float32, (prompts, units)."""
    rng = np.random.default_rng(seed)
    return {
        where: rng.integers(0, levels, (n_prompts, n)).astype(np.float32) / 4 for where, n in SIZES.items()
    }


def ranks_of(importances):
    """Rank within each prompt: 1 is the largest, ties go to the lower index."""
    order = np.argsort(-importances, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, order.shape[1] + 1)[None, :].repeat(len(order), 0), axis=1)
    return ranks


def rows_of(where, importances, rng):
    """Rows of the score table of one address, in random order."""
    place, n = parse_address(where), importances.shape[1]
    ranks = ranks_of(importances)
    rows = pa.table(
        {
            "layer": np.full(n, place.layer, np.int16),
            "projection": pa.array([place.projection] * n),
            "unit": np.arange(n, dtype=np.int32),
            "score": ((n + 1 - ranks.max(0)) / n).astype(np.float32),
            "ranks": np.sort(ranks, axis=0).T.astype(np.int32).tolist(),
            "importances": np.sort(importances, axis=0)[::-1].T.tolist(),
        }
    )
    return rows.take(pa.array(rng.permutation(n)))


def write_neurons(path, importances, change=lambda groups: groups, **metadata):
    """A score table of these importances, its row groups changed if asked for."""
    rng = np.random.default_rng(0)
    groups = change([rows_of(where, values, rng) for where, values in importances.items()])
    shapes = {where: [values.shape[1]] for where, values in importances.items()}
    full = {
        "granularity": "neuron",
        "shapes": shapes,
        "kept": {"matrix": 1.0},
        "name": "a",
        "backbone": "tiny",
    }
    write_groups(path, groups, NEURON_SCORES, full | metadata)
    return path


CASES = {"seed": st.integers(0, 2**32 - 1), "n": st.integers(1, 7), "tenths": st.integers(1, 10)}


@pytest.mark.slow
@given(**CASES, fraction=st.sampled_from([0.1, 0.2, 0.29, 0.5, 1.0]))
def test_common_counts_prompts_that_rank_a_neuron_high(tmp_path_factory, seed, n, tenths, fraction):
    importances = draw(seed, n)
    path = write_neurons(tmp_path_factory.mktemp("s") / "s", importances)
    region = select_agreed(path, "common", fraction, tenths / 10, allow_empty=True)
    expected = set()
    for where, values in importances.items():
        k = int(fraction * SIZES[where] + 1e-9)
        firsts = [sorted(range(SIZES[where]), key=lambda i: (-row[i], i))[:k] for row in values]
        for unit in range(SIZES[where]):
            if 10 * sum(unit in first for first in firsts) >= tenths * n:
                expected.add((where, unit))
    assert units(region) == expected


@given(**CASES, threshold=st.sampled_from([0.1, 0.25, 0.5, 0.75, 3.0]))
def test_above_counts_prompts_a_neuron_matters_to(tmp_path_factory, seed, n, tenths, threshold):
    importances = draw(seed, n)
    path = write_neurons(tmp_path_factory.mktemp("s") / "s", importances)
    region = select_agreed(path, "above", threshold, tenths / 10)
    assert units(region) == {
        (where, unit)
        for where, values in importances.items()
        for unit in range(SIZES[where])
        if 10 * sum(value >= threshold for value in values[:, unit]) >= tenths * n
    }


@pytest.mark.slow
@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_asking_for_less_agreement_adds_neurons(tmp_path_factory, seed):
    path = write_neurons(tmp_path_factory.mktemp("s") / "s", draw(seed, 5))
    for rule, thresholds in (("common", (0.2, 0.4, 0.8)), ("above", (0.75, 0.5, 0.25))):
        grid = [[units(select_agreed(path, rule, t, p)) for p in (1.0, 0.7, 0.3)] for t in thresholds]
        assert all(row[0] <= row[1] <= row[2] for row in grid)
        assert all(upper[i] <= lower[i] for upper, lower in pairwise(grid) for i in range(3))


@pytest.mark.slow
def test_a_named_fraction_differs_between_attention_and_feed_forward(tmp_path):
    sizes = {"layers.0.q": 4096, "layers.0.v": 1024, "layers.0.up": 14336, "layers.0.down": 14336}
    rng = np.random.default_rng(0)
    path = write_neurons(
        tmp_path / "s", {where: rng.random((1, n), np.float32) for where, n in sizes.items()}
    )
    region = select_agreed(path, "common", "plnd")
    assert list(FRACTIONS) == ["plnd"]
    assert region.selected_at == dict(zip(sizes, (1000, 250, 2000, 2000), strict=True))


def test_the_region_says_how_it_was_made_and_has_a_chance(tmp_path):
    regions = {}
    for seed, name in enumerate("ab"):
        path = write_neurons(tmp_path / name, draw(seed, 3, levels=50), name=name)
        regions[name] = select_agreed(path, "common", 0.5, 0.5)
    a, b = regions.values()
    assert (
        a.metadata["scope"] == "matrix"
        and a.metadata["fraction"] == a.n_selected / 39
        and a.metadata["refinement"] == "raw"
    )
    assert a.metadata["agreement"] == {"rule": "common", "threshold": 0.5, "presence": 0.5}
    (model,) = [
        r for r in compute_overlap(membership_of(tmp_path, regions)).to_pylist() if r["level"] == "model"
    ]
    law = pair_iou(tuple(((a.selected_at[w], b.selected_at[w]), n, n) for w, n in SIZES.items()))
    assert model["chance"] == pytest.approx(law)
    assert model["intersection"] == len(units(a) & units(b))


def test_no_agreement_is_an_empty_region(tmp_path):
    importances = {"layers.0.q": np.eye(4, dtype=np.float32)}
    region = select_agreed(write_neurons(tmp_path / "s", importances), "common", 0.25)
    assert region.n_selected == 0
    write_region(tmp_path / "region", region)


def one_less(column):
    return lambda groups: [groups[0].set_column(groups[0].schema.get_field_index(column), column,
                           pa.array([v[:-1] for v in groups[0][column].to_pylist()])), *groups[1:]]  # fmt: skip


def with_value(column, value):
    def change(groups):
        lists = groups[0][column].to_pylist()
        lists[1][0] = value
        return [
            groups[0].set_column(groups[0].schema.get_field_index(column), column, pa.array(lists)),
            *groups[1:],
        ]

    return change


NOT_FINITE = "importances: found 1 values NaN or infinite"
COMMON, ABOVE = ("common", 0.5), ("above", 0.1)
REFUSED = {
    "unknown rule": (("comon", 0.5), {}, None, "Did you mean 'common'"),
    "not all kept": (COMMON, {"kept": {"matrix": 0.5}}, None, r"kept: \{matrix: 1.0\}"),
    "weights": (COMMON, {"granularity": "weight"}, None, "weight_scores"),
    "a fraction of none": (("common", 0.1), {}, None, r"layers\.0\.q: found fraction 0.1 of 8 neurons"),
    "a neuron missing": (COMMON, {}, lambda g: [g[0].slice(1), *g[1:]], "7 rows; expected 8 neurons, each once"),
    "a neuron twice": (ABOVE, {}, lambda g: [pa.concat_tables([g[0].slice(1), g[0].slice(7)]), *g[1:]], "each once"),
    "an address missing": (COMMON, {}, lambda g: g[1:], r"layers\.0\.q: found 0 rows"),
    "no lists": (COMMON, {}, lambda g: [t.drop_columns(["ranks"]) for t in g], "8 nulls"),
    "no prompts": (COMMON, {}, one_less("ranks"), "lists of \\[0\\] values"),
    "a list too short": (COMMON, {}, with_value("ranks", None), "1 nulls"),
    "an infinite importance": (ABOVE, {}, with_value("importances", float("inf")), NOT_FINITE),
    "importances not numbers": (ABOVE, {}, with_value("importances", float("nan")), NOT_FINITE),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_agreed_on_is_refused(tmp_path, case):
    how, metadata, change, message = REFUSED[case]
    path = write_neurons(tmp_path / "s", draw(0, 1), change or (lambda groups: groups), **metadata)
    with pytest.raises(StudyError, match=message):
        select_agreed(path, *how)


def test_lists_of_unequal_lengths_are_refused(tmp_path):
    def shorten(groups):
        lists = groups[0]["ranks"].to_pylist()
        return [groups[0].set_column(4, "ranks", pa.array([lists[0][:-1], *lists[1:]])), *groups[1:]]

    path = write_neurons(tmp_path / "s", draw(0, 3), shorten)
    with pytest.raises(StudyError, match=r"layers\.0\.q: ranks: found 0 nulls, lengths \[2, 3\]"):
        select_agreed(path, "common", 0.5)


def test_every_rule_reads_a_column_of_the_table():
    assert set(RULES.values()) <= set(NEURON_SCORES.schema.names)
