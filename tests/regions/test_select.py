"""Selecting must take the best of every scope unit: sorted by score descending, then flat index ascending."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.regions.select import SELECTORS, select_region
from safety_regions.units.addresses import parse_address
from safety_regions.units.fractions import scope_count
from tests.regions.small_regions import SHAPES, SHAPES_OF, oracle, score_rows, units, write_scores

SCOPES = [("weight", scope) for scope in SELECTORS] + [("neuron", "matrix"), ("neuron", "layer"),
          ("neuron", "global"), ("head", "layer"), ("head", "global"), ("layer", "global")]  # fmt: skip


def scope_unit(scope, where, index, shape):
    """Return the scope unit that a unit belongs to."""
    return {
        "row": (where, index // shape[-1]),
        "matrix": where,
        "layer": parse_address(where).layer,
        "global": None,
    }[scope]


def ranked(scores, scope):
    """Return the units of every scope unit, best first, by the literal definition."""
    found = {}
    for position, (where, values) in enumerate(scores.items()):
        for index, score in enumerate(values.astype(np.float64).ravel()):
            unit = (-score, position, index, where)
            found.setdefault(scope_unit(scope, where, index, values.shape), []).append(unit)
    return [sorted(group) for group in found.values()]


def best(scores, scope, fraction):
    """Return what must be selected, as a set of (address, flat index)."""
    return {
        (where, index)
        for group in ranked(scores, scope)
        for _, _, index, where in group[: int(Decimal(str(fraction)) * len(group))]
    }


def draw_scores(granularity, seed, kind):
    """Return random scores per address: with many ties, with both signs and both zeros, or over the range of floats."""
    rng = np.random.default_rng(seed)
    draw = {
        "ties": lambda shape: rng.integers(0, 3, shape).astype(float),
        "zeros": lambda shape: rng.choice([0.0, -0.0, -1.0, 1e-45, -1e-45], shape),
        "spread": lambda shape: rng.standard_normal(shape) * 10.0 ** rng.integers(-40, 38, shape),
    }[kind]
    return {where: draw(shape).astype(np.float32) for where, shape in SHAPES_OF[granularity].items()}


CASES = {
    "case": st.sampled_from(SCOPES),
    "seed": st.integers(0, 2**32 - 1),
    "kind": st.sampled_from(["ties", "zeros", "spread"]),
    "fraction": st.sampled_from([0.1, 0.29, 0.35, 0.5, 0.95, 1.0]),
}


@settings(max_examples=100, deadline=None)
@given(**CASES)
def test_selecting_is_sorting(tmp_path_factory, case, seed, kind, fraction):
    granularity, scope = case
    scores = draw_scores(granularity, seed, kind)
    path = write_scores(tmp_path_factory.mktemp("s") / "s.parquet", granularity, scores, {scope: 1.0})
    region = select_region(path, scope, fraction, allow_empty=True)
    assert units(region) == best(scores, scope, fraction)


@settings(max_examples=50, deadline=None)
@given(**CASES)
def test_a_method_that_asks_for_positive_scores_gets_no_others(tmp_path_factory, case, seed, kind, fraction):
    granularity, scope = case
    scores = draw_scores(granularity, seed, kind)
    options = {"options": {"positive": True}}
    path = write_scores(
        tmp_path_factory.mktemp("s") / "s.parquet", granularity, scores, {scope: 1.0}, **options
    )
    region = select_region(path, scope, fraction, allow_empty=True)
    expected = {
        (where, unit) for where, unit in best(scores, scope, fraction) if scores[where].flat[unit] > 0
    }
    assert units(region) == expected
    assert (region.metadata["fraction"], region.available) == (fraction, region.units_at)


def test_a_region_without_positive_scores_is_empty_and_no_error(tmp_path):
    scores = {where: -np.ones(shape, np.float32) for where, shape in SHAPES.items()}
    path = write_scores(tmp_path / "s.parquet", "weight", scores, {"row": 1.0}, options={"positive": True})
    assert select_region(path, "row", 1.0).n_selected == 0
    plain = write_scores(tmp_path / "p.parquet", "weight", scores, {"row": 1.0}, options={"positive": False})
    assert select_region(plain, "row", 1.0).n_selected == sum(
        shape[0] * shape[1] for shape in SHAPES.values()
    )


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(**CASES, shuffle=st.booleans())
def test_the_kept_best_are_enough_in_any_order(tmp_path_factory, case, seed, kind, fraction, shuffle):
    granularity, scope = case
    scores = draw_scores(granularity, seed, kind)
    rng = np.random.default_rng(seed)
    keep = {where: rng.random(s.shape) < 0.2 for where, s in scores.items()}
    for where, index in best(scores, scope, fraction):
        keep[where].flat[index] = True
    rows = pa.concat_tables([score_rows(where, s, keep[where]) for where, s in scores.items()])
    pieces = [rows.take(pa.array(part)) for part in np.array_split(rng.permutation(rows.num_rows), 3)]
    path = tmp_path_factory.mktemp("s") / "s.parquet"
    write_scores(path, granularity, scores, {scope: fraction}, keep, pieces if shuffle else None)
    region = select_region(path, scope, fraction, allow_empty=True)
    assert units(region) == best(scores, scope, fraction)


def test_the_region_says_how_it_was_made(tmp_path):
    path = write_scores(tmp_path / "s", "weight", draw_scores("weight", 0, "ties"), {"matrix": 1.0})
    region = select_region(path, "matrix", 0.5)
    expected = {"granularity": "weight", "name": "a", "backbone": "tiny"}
    assert region.metadata == {**expected, "scope": "matrix", "fraction": 0.5, "refinement": "raw"}
    assert region.shapes == SHAPES and region.available == region.units_at


@given(st.integers(0, 1000), st.integers(1, 10**10))
def test_counts_are_of_the_fraction_as_written(thousandths, n):
    assert scope_count(thousandths / 1000, n) == thousandths * n // 1000


@given(st.data(), st.integers(1, 4096))
def test_counts_invert_division(data, n):
    k = data.draw(st.integers(0, n))
    assert scope_count(k / n, n) == k


@given(st.floats(0, 1), st.integers(1, 10**6))
def test_counts_are_the_original_ones_but_for_rounding(fraction, n):
    assert abs(scope_count(fraction, n) - fraction * n) < 1 + 1e-2


REFUSED = {
    "unknown scope": ("weight", "rows", 0.1, "Did you mean 'row'"),
    "scope not kept": ("weight", "global", 0.1, "kept"),
    "fraction not kept": ("weight", "matrix", 0.6, "kept"),
    "negative fraction": ("weight", "matrix", -0.1, "kept"),
    "no fraction": ("weight", "matrix", float("nan"), "kept"),
    "empty scope unit": ("weight", "matrix", 0.1, r"layers\.0\.k: found fraction 0.1 of 8 units"),
    "rows of neurons": ("neuron", "row", 0.1, "units without rows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_selected_is_refused(tmp_path, name):
    granularity, scope, fraction, message = REFUSED[name]
    kept = {"matrix": 0.5, "row": 0.5}
    path = write_scores(tmp_path / "s", granularity, draw_scores(granularity, 0, "ties"), kept)
    with pytest.raises(StudyError, match=message):
        select_region(path, scope, fraction)


@pytest.mark.parametrize("scope", SELECTORS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(tmp_path, scope, value):
    scores = draw_scores("weight", 0, "ties")
    scores["layers.10.v"][1, 1] = value
    path = write_scores(tmp_path / "s", "weight", scores, {scope: 0.5})
    with pytest.raises(StudyError, match=r"layers\.10\.v: found 1 scores NaN or infinite"):
        select_region(path, scope, 0.5, allow_empty=True)


def damaged_rows(change):
    scores = draw_scores("weight", 0, "ties")
    groups = [score_rows(where, s, np.ones(s.shape, bool)) for where, s in scores.items()]
    return scores, change(groups)


DAMAGED = {
    "too few": (lambda g: [g[0].slice(9), *g[1:]], "scores"),
    "no rows at all": (lambda g: [g[0].slice(0, 0)], "scores"),
    "listed twice": (lambda g: [pa.concat_tables([g[0]] * 2), *g[1:]], "twice"),
    "outside": (lambda g: [g[0].set_column(0, "row", pa.array([3] * 15, pa.int32())), *g[1:]], "row 3 to 3"),
    "other address": (
        lambda g: [g[0].set_column(2, "layer", pa.array([7] * 15, pa.int16())), *g[1:]],
        "layers.7.q",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("scope", SELECTORS)
def test_damaged_tables_are_refused(tmp_path, scope, name):
    change, message = DAMAGED[name]
    scores, groups = damaged_rows(change)
    path = write_scores(tmp_path / "s", "weight", scores, {scope: 1.0}, groups=groups)
    with pytest.raises(StudyError, match=message):
        select_region(path, scope, 1.0)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 but no more"])
def test_a_file_that_is_no_score_table_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "s").write_bytes(content)
    with pytest.raises(StudyError, match=f"{tmp_path}.*run snakemake again"):
        select_region(tmp_path / "s", "matrix", 0.5)


def test_damaged_pages_never_change_a_region(tmp_path):
    path = write_scores(tmp_path / "s", "weight", draw_scores("weight", 0, "spread"), {"global": 1.0})
    expected, content = units(select_region(path, "global", 0.5)), path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    places = range(4, footer, footer // 60)
    errors = 0
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            assert units(select_region(path, "global", 0.5)) == expected
        except StudyError as error:
            assert str(path) in str(error)
            errors += 1
    assert errors > len(places) / 2


@pytest.mark.parametrize("method", ["snip", "wanda"])
def test_regions_of_the_published_code(tmp_path, method):
    """Wei et al.'s scores, selected here, must give Wei et al.'s regions: the top 10 % of each row."""
    scores, masks = oracle(f"{method}.safety.scores"), oracle(f"{method}.row10pct_raw")
    path = write_scores(tmp_path / "s", "weight", scores, {"row": 0.1})
    region = select_region(path, "row", 0.1)
    assert all(np.array_equal(region.flags(where), mask != 0) for where, mask in masks.items())
