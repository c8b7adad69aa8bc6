"""The scripts that make regions select and refine exactly the units that known scores and regions imply."""

import numpy as np
import pytest

from safety_regions.errors import StudyError
from safety_regions.formats.region import read_region, write_region
from tests.regions.small_regions import SHAPES, region_of, units, write_scores
from tests.scripts.loading import load_script

WHERE = "layers.0.q"


def test_select_region_keeps_the_best_of_each_row(tmp_path):
    scores = {WHERE: np.array([[1.0, 4, 2, 3], [8, 7, 6, 5]])}
    table = write_scores(tmp_path / "scores.parquet", "weight", scores, {"row": 1.0})
    load_script("select_regions")([table], [tmp_path / "region.safetensors"], "row-0.5", False)
    region = read_region(tmp_path / "region.safetensors")
    assert region.flags(WHERE).tolist() == [[False, True, False, True], [True, True, False, False]]
    assert (region.metadata["scope"], region.metadata["fraction"]) == ("row", 0.5)


def test_select_region_takes_an_empty_region_only_where_that_is_allowed(tmp_path):
    table = write_scores(tmp_path / "scores.parquet", "weight", {WHERE: np.ones((2, 3))}, {"row": 1.0})
    args = [table], [tmp_path / "region.safetensors"], "row-0.1"
    with pytest.raises(StudyError):
        load_script("select_regions")(*args, False)
    load_script("select_regions")(*args, True)
    assert units(read_region(tmp_path / "region.safetensors")) == set()


def test_refine_region_takes_the_utility_set_away(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.safetensors" for name in ("harm", "plain", "left")]
    regions = [region_of(rng, 0.6, SHAPES, name=path.stem) for path in paths[:2]]
    for path, region in zip(paths, regions, strict=False):
        write_region(path, region)
    load_script("refine_regions")({"harm": paths[0]}, {"harm": paths[2]}, paths[1], {}, {})
    assert units(read_region(paths[2])) == units(regions[0]) - units(regions[1])
    assert units(regions[0]) & units(regions[1])


def test_refine_region_cuts_a_shuffle_to_the_size_of_its_set(tmp_path):
    rng = np.random.default_rng(0)
    like, utility, shuffled = (region_of(rng, density, SHAPES, scope="matrix") for density in (0.2, 0.3, 0.6))
    scores = {where: rng.random(shape).astype(np.float32) for where, shape in SHAPES.items()}
    table = write_scores(tmp_path / "scores.parquet", "weight", scores, {"matrix": 1.0})
    paths = [tmp_path / f"{name}.safetensors" for name in ("shuffled", "utility", "left", "like")]
    for path, region in zip(paths, (shuffled, utility, None, like), strict=True):
        if region:
            write_region(path, region)
    region, removed, left, whole = paths
    load_script("refine_regions")({"a~1": region}, {"a~1": left}, removed, {"a~1": whole}, {"a~1": table})
    found = read_region(left)
    assert found.selected_at == like.selected_at and units(found) < units(shuffled) - units(utility)
