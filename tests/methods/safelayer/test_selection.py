"""Regions of layers are the ranges in the metadata, layer by layer, and behave as regions."""

import numpy as np
import pyarrow as pa
import pytest

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import LAYER_SCORES, LAYER_SWEEP
from safety_regions.formats.parquet import write_table
from safety_regions.formats.region import read_region, write_region
from safety_regions.methods.safelayer.selection import select
from safety_regions.overlap.membership import count_membership, region_totals
from safety_regions.regions.refine import subtract_region
from safety_regions.regions.select import select_region
from safety_regions.units.addresses import LAYERS

N = 11


def metadata(found: dict, name: str = "a") -> dict:
    shapes = {"granularity": "layer", "shapes": {LAYERS: [N]}, "kept": {"global": 1.0}}
    return {**shapes, "backbone": "tiny", "label": "safelayer", "name": name, "found": found}


def score_file(path, span, name="a"):
    rows = pa.table({"layer": list(range(N)), "score": np.arange(N, dtype=np.float32)})
    write_table(path, rows, LAYER_SCORES, metadata({"gap": span}, name))
    return path


def sweep_file(path, span, name="a"):
    write_table(path, LAYER_SWEEP.schema.empty_table(), LAYER_SWEEP, metadata({"range": span}, name))
    return path


def gap_region(path):
    return select(path, "gap", None, False)


def range_region(path):
    return select(path.with_name("scores.parquet"), "range", path, False)


BOTH = pytest.mark.parametrize(
    "write, select, name", [(score_file, gap_region, "gap"), (sweep_file, range_region, "range")]
)


@BOTH
@pytest.mark.parametrize("span", [[0, 0], [3, 5], [0, N - 1], [N - 1, N - 1]])
def test_both_ends_are_included(tmp_path, write, select, name, span):
    region = select(write(tmp_path / "x.parquet", span))
    assert np.flatnonzero(region.flags(LAYERS)).tolist() == list(range(span[0], span[1] + 1))
    assert region.n_units == N and region.metadata["fraction"] == region.n_selected / N
    assert {key: region.metadata[key] for key in ("granularity", "scope", "selection", "refinement", "name")} == {
        "granularity": "layer", "scope": "global", "selection": name, "refinement": "raw", "name": "a",
    }  # fmt: skip
    write_region(tmp_path / "x.safetensors", region)
    assert read_region(tmp_path / "x.safetensors").metadata == region.metadata


@BOTH
def test_no_range_is_an_empty_region(tmp_path, write, select, name):
    region = select(write(tmp_path / "x.parquet", None))
    assert region.n_selected == 0 and region.n_units == N


@BOTH
def test_refinement_is_a_difference_of_ranges(tmp_path, write, select, name):
    region, utility = select(write(tmp_path / "a", [2, 7], "a")), select(write(tmp_path / "b", [5, 9], "b"))
    refined = subtract_region(region, utility)
    assert np.flatnonzero(refined.flags(LAYERS)).tolist() == [2, 3, 4]
    assert refined.available == {LAYERS: N - 5} and refined.metadata["refinement"] == "minus-b"


def test_ranges_are_compared_like_any_region(tmp_path):
    for name, span in (("a", [2, 6]), ("b", [4, 9])):
        write_region(tmp_path / name, range_region(sweep_file(tmp_path / f"{name}.parquet", span, name)))
    assert region_totals(count_membership({"a": tmp_path / "a", "b": tmp_path / "b"})) == {"a": 5, "b": 6}


def test_the_score_file_ranks_layers_too(tmp_path):
    region = select_region(score_file(tmp_path / "x.parquet", [3, 5]), "global", 0.3)
    assert np.flatnonzero(region.flags(LAYERS)).tolist() == [8, 9, 10]


def test_another_kind_of_file_says_so(tmp_path):
    with pytest.raises(StudyError, match="layer_sweep"):
        range_region(score_file(tmp_path / "x.parquet", [3, 5]))
    rows = pa.table({"layer": list(range(N)), "score": np.zeros(N, np.float32)})
    write_table(tmp_path / "y.parquet", rows, LAYER_SCORES, {**metadata({}), "found": {}})
    with pytest.raises(StudyError, match="selection 'gap'"):
        gap_region(tmp_path / "y.parquet")
