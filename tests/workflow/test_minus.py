"""Regions of one method refined by utility regions of another, with their own fraction, from scores to floors."""

import numpy as np
import pytest

from safety_regions.formats.contracts import LABELS, OVERLAP
from safety_regions.formats.parquet import read_table
from safety_regions.formats.region import read_region
from tests.workflow.conftest import Project, make_project

pytestmark = pytest.mark.slow

SOME, NONE = "matrix-0.05", "matrix-0.00001"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Project:
    """Run the tiny study with signed scores minus a tenth of another method's weights of the utility set."""
    project = make_project(tmp_path_factory.mktemp("minus") / "project")
    minus = {"method": "preserve", "selection": "matrix-0.1"}
    methods = {
        "signed": {"method": "signed_snip", "selections": [SOME, NONE], "minus": minus},
        "preserve": {"method": "snip"},
    }
    frame = {"floors": 2, "ceilings": True, "label_permutations": 19, "kept": {"matrix": 0.1}}
    project.config = project.config | {"methods": methods, "allow_empty": True} | frame
    project.run()
    return project


def region(study: Project, name: str, selection: str = SOME, refinement: str = "minus-plain"):
    return read_region(
        study.folder / f"results/regions/tiny/signed/{name}/{selection}/{refinement}.safetensors"
    )


def test_a_refined_region_lacks_the_other_method_s_units(study):
    removed = read_region(study.folder / "results/regions/tiny/preserve/plain/matrix-0.1/raw.safetensors")
    for name in ("one", "two", "one.1", "two.1"):
        raw, refined = region(study, name, refinement="raw"), region(study, name)
        for where in raw.shapes:
            assert np.array_equal(refined.flags(where), raw.flags(where) & ~removed.flags(where))
        assert 0 < refined.n_selected < raw.n_selected
        assert sum(refined.available.values()) == raw.n_units - removed.n_selected
        assert refined.metadata["subtracted"]["label"] == "preserve"
        assert refined.metadata["subtracted"]["fraction"] == 0.1


def test_a_refined_shuffle_has_the_size_of_the_refined_region(study):
    for name in ("one", "two"):
        own, shuffled = region(study, name), region(study, f"{name}~1")
        assert all(shuffled.selected_at[where] <= n for where, n in own.selected_at.items())
        assert shuffled.n_selected > 0.9 * own.n_selected


def test_the_refined_cell_has_an_iou_beside_chance_and_floors(study):
    rows = read_table(
        study.folder / f"results/overlap/tiny/signed/{SOME}/minus-plain.parquet", OVERLAP
    ).to_pylist()
    (row,) = (row for row in rows if row["level"] == "model" and row["combination"] == "one & two")
    one, two = (region(study, name) for name in ("one", "two"))
    flags = [np.concatenate([r.flags(where).ravel() for where in r.shapes]) for r in (one, two)]
    assert row["iou"] == pytest.approx((flags[0] & flags[1]).sum() / (flags[0] | flags[1]).sum())
    assert 0 < row["chance"] < 0.1 and 0 < row["floor"] < 1 and 0 < row["floor_marginals"] < 1
    assert row["half_iou"] is not None and 0 < row["permuted_p"] <= 1
    splits = read_table(
        study.folder / "results/overlap/tiny/signed/labels/one+two.parquet", LABELS
    ).to_pylist()
    found = {(split["selection"], split["refinement"]) for split in splits}
    assert found == {(s, r) for s in (SOME, NONE) for r in ("raw", "minus-plain")}


def test_a_fraction_of_no_weight_gives_empty_regions_and_no_iou(study):
    assert region(study, "one", NONE).n_selected == 0
    rows = read_table(
        study.folder / f"results/overlap/tiny/signed/{NONE}/minus-plain.parquet", OVERLAP
    ).to_pylist()
    assert {row["iou"] for row in rows} == {None}
