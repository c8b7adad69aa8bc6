"""Methods that compare an organism with its own first phase find what was planted, from training to recovery."""

import pytest

from safety_regions.formats.contracts import IOU, NEURON_SCORES, RECOVERY, WEIGHT_SCORES
from safety_regions.formats.parquet import read_metadata, read_table
from safety_regions.formats.region import read_region
from safety_regions.formats.subspaces import read_subspaces
from safety_regions.units.addresses import parse_address
from tests.workflow.conftest import Project, make_project

pytestmark = pytest.mark.slow

PLANTED = 1  # the only block that alignment may change
MAP = "results/report/planted/ranks/matrix-0.1/map.svg"
METHODS = {
    "delta": {"selections": ["layer-0.05"]},
    "wanda": {"options": {"difference": True}},
    "change_score": {"selections": ["matrix-0.1"]},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Project:
    project = make_project(tmp_path_factory.mktemp("first") / "project")
    plan = {
        "harmful": ["one"], "helpful": ["plain"], "held_out_per_set": 2, "batch": 4, "careful": False,
        "base": {"steps": 3, "learning_rate": 0.01}, "align": {"steps": 3, "learning_rate": 0.01},
    }  # fmt: skip
    sizes = {
        "hidden_size": 16, "intermediate_size": 24, "layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 8,
        "vocab_size": 400, "context": 256,
    }  # fmt: skip
    config = project.config
    config["cards"]["backbones"] = {
        "planted": {
            "kind": "organism", "title": "Planted", "family": "llama", "architecture": sizes, "training": plan,
            "plant": {"layers": [PLANTED]}, "required_refusal": 0, "allowed_over_refusal": 1, "temperature": 0,
        },
    }  # fmt: skip
    kept = {"kept": {"matrix": 1.0, "layer": 1.0, "row": 0.1}, "allow_empty": True}
    # Ranks run beside the others, from scores to a figure, and are compared with the directions of the change.
    ranks = {"ranks": {"method": "actsvd", "selections": ["matrix-0.1"]}}
    project.config = config | kept | {"backbones": ["planted"], "methods": METHODS | ranks, "floors": 2}
    project.run("results/recovery/planted.parquet", "results/overlap/iou.parquet", MAP)
    return project


def largest(study: Project, method: str, contract) -> dict[int, float]:
    """Return layer -> its largest score."""
    path = study.folder / f"results/scores/planted/{method}/one.parquet"
    return read_table(path, contract).to_pandas().groupby("layer")["score"].max().to_dict()


@pytest.mark.parametrize("method", ["delta", "wanda"])
def test_only_planted_weights_have_changed(study, method):
    found = largest(study, method, WEIGHT_SCORES)
    assert {layer: score > 0 for layer, score in found.items()} == {0: False, PLANTED: True, 2: False}


def test_activations_change_from_the_planted_layer_on(study):
    found = largest(study, "change_score", NEURON_SCORES)
    assert {layer: score > 0 for layer, score in found.items()} == {0: False, PLANTED: True, 2: True}


def test_shuffles_are_scored_in_a_frame(study):
    """The inputs of the base go through a file, also in a job whose output is a folder that is not yet there."""
    frame = study.folder / "results/scores/planted/change_score/one.frame"
    assert {"one~1.parquet", "one~2.parquet"} <= {path.name for path in frame.iterdir()}


def test_what_did_not_change_is_in_no_region(study):
    """Scores of 0 are tied, so a region that took them would be the same units of every set."""
    for method, selection, changed in (("delta", "layer-0.05", {1}), ("change_score", "matrix-0.1", {1, 2})):
        region = read_region(
            study.folder / f"results/regions/planted/{method}/one/{selection}/raw.safetensors"
        )
        layers = {parse_address(where).layer for where, n in region.selected_at.items() if n}
        assert layers == changed


def test_regions_of_ranks_have_their_own_tables(study):
    """They are subspaces: no memberships are counted."""
    folder = study.folder / "results/overlap/planted/ranks/matrix-0.1"
    tables = ("subspaces.parquet", "spectrum.parquet", "parquet", "iou.tsv")
    expected = {f"{refinement}.{table}" for refinement in ("raw", "minus-plain") for table in tables}
    assert {path.name for path in folder.iterdir()} >= expected
    assert not list(folder.glob("*.membership.parquet"))
    raw = read_subspaces(study.folder / "results/regions/planted/ranks/one/matrix-0.1/raw.safetensors")
    assert set(raw.selected_at.values()) == {1} and set(raw.units_at.values()) == {16}
    rows = read_table(study.folder / "results/overlap/iou.parquet", IOU).to_pylist()
    (row,) = (
        row
        for row in rows
        if (row["method"], row["refinement"], row["level"], row["between"])
        == ("ranks", "raw", "model", "identification")
    )
    assert 0 < row["iou"] <= 1 and row["dimensions"] <= 21 and row["intersection"] is None
    assert row["similarity_chance"] == pytest.approx(1 / 16)
    assert "median pairwise IoU" in (study.folder / MAP).read_text()


def test_ranks_are_compared_with_the_directions_of_the_change_in_the_planted_layer(study):
    change = read_subspaces(study.folder / "results/recovery/planted.change.safetensors")
    assert {where for where, n in change.selected_at.items() if n} == {
        where for where in change.bases if parse_address(where).layer == PLANTED
    }
    rows = read_table(study.folder / "results/recovery/planted.parquet", RECOVERY).to_pylist()
    ranks = [row for row in rows if row["granularity"] == "rank"]
    assert {row["method"] for row in rows} == {*METHODS, "ranks"} and {row["method"] for row in ranks} == {
        "ranks"
    }
    for row in ranks:
        assert (row["n_truth"], row["n_weights"], row["auroc"]) == (7, 3 * 7 * 16, None)
        if row["refinement"] == "raw":  # one rank of 16 everywhere
            assert 0 <= row["precision"] <= 1 and row["chance"] == pytest.approx(7 / 16 / (28 - 7 / 16))
    assert {row["refinement"] for row in ranks} == {"raw", "minus-plain"}


def test_files_name_the_first_phase_as_their_base(study):
    for method in METHODS:
        metadata = read_metadata(study.folder / f"results/scores/planted/{method}/one.parquet")
        assert metadata["base"] == "results/organisms/planted/base.safetensors"


def test_the_change_of_the_weights_is_the_truth(study):
    """Of the truth, a whole layer, the scores of the data-free method know everything."""
    rows = read_table(study.folder / "results/recovery/planted.parquet", RECOVERY).to_pylist()
    found = {row["auroc"] for row in rows if row["method"] == "delta"}
    assert len(found) == 1 and found.pop() > 0.99


def test_a_second_run_has_nothing_to_do(study):
    assert study.plan("results/recovery/planted.parquet", "results/overlap/iou.parquet") == {}
