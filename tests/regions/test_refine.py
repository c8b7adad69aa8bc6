"""Refining must be the set difference, unit by unit."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given

from safety_regions.errors import StudyError
from safety_regions.formats.region import Region
from safety_regions.regions.refine import keep_as_many, subtract_region
from safety_regions.regions.select import select_region
from safety_regions.units.addresses import sort_addresses
from tests.regions.small_regions import SHAPES, oracle, region_of, regions, units, write_scores


@given(regions(name="a", refinement="raw"), regions(name="u", refinement="raw"))
def test_refining_is_the_set_difference(region, other):
    refined = subtract_region(region, other)
    assert units(refined) == units(region) - units(other)
    assert sum(refined.available.values()) == region.n_units - other.n_selected
    assert all(refined.selected_at[where] <= refined.available[where] for where in refined.shapes)
    assert refined.metadata == {**region.metadata, "refinement": "minus-u", "subtracted": other.metadata}


@given(regions())
def test_minus_itself_is_empty_and_minus_nothing_is_itself(region):
    nothing = Region.pack(
        {where: np.zeros(shape, bool) for where, shape in region.shapes.items()}, region.metadata
    )
    assert subtract_region(region, region).n_selected == 0
    assert units(subtract_region(region, nothing)) == units(region)
    assert subtract_region(region, nothing).available == region.available


OTHER = [({"granularity": "neuron"}, "granularity"), ({"backbone": "other"}, "backbone"),
         ({"shapes": {"layers.0.q": (3, 5)}}, "shapes")]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), OTHER)
def test_regions_of_other_units_are_refused(change, message):
    region, other = (region_of(np.random.default_rng(0), **c) for c in ({}, change))
    with pytest.raises(StudyError, match=message):
        subtract_region(region, other)


def test_a_refined_region_is_not_refined_again():
    region = region_of(np.random.default_rng(0))
    refined = subtract_region(region, region_of(np.random.default_rng(1), density=0.5))
    with pytest.raises(StudyError, match="refined already"):
        subtract_region(refined, region)


def literal_best(region, like, scores, scope):
    """The best units of the region one by one, while their scope unit has fewer than in ``like``."""

    def scope_unit(where, i):
        row = i // region.shapes[where][-1]
        layer = where.split(".")[1]
        return {"row": (where, row), "matrix": where, "layer": layer, "global": ""}[scope]

    allowed = Counter(scope_unit(where, i) for where, i in units(like))
    ranked = sorted(
        units(region), key=lambda u: (-scores[u[0]].flat[u[1]], sort_addresses(SHAPES).index(u[0]), u[1])
    )
    taken, kept = Counter(), set()
    for where, i in ranked:
        place = scope_unit(where, i)
        if taken[place] < allowed[place]:
            taken[place] += 1
            kept.add((where, i))
    return kept


@pytest.mark.parametrize("scope", ["row", "matrix", "layer", "global"])
@pytest.mark.parametrize("seed", range(3))
def test_a_refined_shuffle_gets_the_size_of_the_refined_region(tmp_path, scope, seed):
    rng = np.random.default_rng(seed)
    other = region_of(rng, 0.3, name="u", scope=scope)
    like, shuffled = (subtract_region(region_of(rng, density, scope=scope), other) for density in (0.3, 0.6))
    scores = {where: rng.integers(0, 5, shape).astype(np.float32) for where, shape in SHAPES.items()}
    path = write_scores(tmp_path / "scores", "weight", scores, {scope: 1.0})
    found = keep_as_many(shuffled, like, path)
    assert units(found) == literal_best(shuffled, like, scores, scope) < units(shuffled)
    assert (found.available, found.metadata) == (shuffled.available, shuffled.metadata)


def test_a_refined_shuffle_needs_the_scores_of_its_units(tmp_path):
    region = region_of(np.random.default_rng(0), 0.5, scope="matrix")
    scores = {where: np.ones(shape, np.float32) for where, shape in SHAPES.items()}
    kept = {where: np.arange(np.prod(s)).reshape(s) % 7 == 0 for where, s in SHAPES.items()}
    path = write_scores(tmp_path / "scores", "weight", scores, {"matrix": 0.1}, kept)
    with pytest.raises(StudyError, match="units of the region"):
        keep_as_many(region, region, path)


@pytest.mark.parametrize("method", ["snip", "wanda"])
def test_set_difference_of_the_published_code(tmp_path, method):
    """Wei et al.'s scores, selected and subtracted here, must give Wei et al.'s difference at 5 % and 5 %."""
    tables = {name: tmp_path / name for name in ("safety", "utility")}
    for name, path in tables.items():
        write_scores(path, "weight", oracle(f"{method}.{name}.scores"), {"matrix": 0.05})
    refined = subtract_region(*(select_region(path, "matrix", 0.05) for path in tables.values()))
    expected = oracle(f"{method}.matrix5pct_difference")
    assert all(np.array_equal(refined.flags(where), mask) for where, mask in expected.items())
