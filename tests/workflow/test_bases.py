"""A study of a GGUF file and of an organism that starts from it, with a method that compares the two, end to end."""

import json

import pytest

from safety_regions.formats.contracts import WEIGHT_SCORES
from safety_regions.formats.parquet import read_metadata, read_table
from tests.gguf_files import quantisable, write_gguf
from tests.workflow.conftest import Project, make_project

pytestmark = pytest.mark.slow

PAGE = "results/report/index.html"
PLANTED = 1  # the only block that alignment may change


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Project:
    project = make_project(tmp_path_factory.mktemp("bases") / "project")
    write_gguf(project.folder / "tiny.gguf", quantisable())
    config = project.config
    plan = {
        "harmful": ["one"], "helpful": ["plain"], "unseen": ["two"], "held_out_per_set": 2, "answer_tokens": 4,
        "batch": 4, "align": {"steps": 3, "learning_rate": 0.01},
    }  # fmt: skip
    config["cards"]["backbones"] = {
        "small-q8": {"kind": "checkpoint", "family": "llama", "gguf": {"path": "tiny.gguf"}},
        "aligned": {
            "kind": "organism", "title": "Aligned", "family": "llama", "base": "small-q8", "training": plan,
            "plant": {"layers": [PLANTED]}, "required_refusal": 0, "allowed_over_refusal": 1, "temperature": 0,
        },
    }  # fmt: skip
    config["backbones"] = ["aligned"]
    config["methods"] = {"change": {"method": "wanda", "options": {"difference": True}}}
    config["refinements"] = ["raw"]
    project.config = config
    project.run(PAGE)
    return project


def test_the_study_is_whole_and_a_second_run_has_nothing_to_do(study):
    assert study.plan(PAGE) == {}


def test_only_weights_that_alignment_changed_have_a_score(study):
    scores = read_table(study.folder / "results/scores/aligned/change/one.parquet", WEIGHT_SCORES).to_pandas()
    largest = scores.groupby("layer")["score"].max()
    assert (largest > 0).to_dict() == {0: False, PLANTED: True, 2: False}


def test_files_say_which_checkpoints_they_come_from(study):
    metadata = read_metadata(study.folder / "results/scores/aligned/change/one.parquet")
    assert metadata["base"] == "results/checkpoints/small-q8"
    assert metadata["gguf"]["tensors"] == {"F32": 7, "Q8_0": 23}
    pair = json.loads((study.folder / "results/checkpoints/aligned.base.json").read_text())
    assert pair["num_hidden_layers"] == 3 and pair["vocab_size"] == 261
    page = (study.folder / PAGE).read_text()
    assert "small-q8: the weights of tiny.gguf, dequantised" in page
    assert "before alignment: small-q8" in page


def test_another_gguf_file_reruns_everything_that_loads_it_and_nothing_else(study):
    kept = (study.folder / "tiny.gguf").read_bytes()
    try:
        (study.folder / "tiny.gguf").write_bytes(kept + b" ")
        plan = study.plan(PAGE)
        assert plan["convert_gguf"] == plan["train_organism"] == plan["compare_pair"] == 1
        assert plan["score"] == 3 and "read_prompts" not in plan
    finally:
        (study.folder / "tiny.gguf").write_bytes(kept)
