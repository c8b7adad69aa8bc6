"""What regions do, end to end: the planted region of an organism carries its refusals, random regions do not."""

import pytest
import torch
from safetensors.torch import load_file

from safety_regions.formats.contracts import CONSTRAINT, EFFECTS
from safety_regions.formats.parquet import read_table
from safety_regions.model.loading import load_backbone
from tests.workflow.conftest import Project, make_project

pytestmark = pytest.mark.slow

EXPORTED = "results/exported/organism/given/planted/base-1/model.safetensors"
FIGURES = "results/report/organism/snip/row-0.05"
TARGETS = ("results/report/behaviour.html", f"{FIGURES}/behaviour.svg", f"{FIGURES}/transfer.svg")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Project:
    """An organism with one planted layer of four, reset to its base and transplanted into it."""
    project = make_project(tmp_path_factory.mktemp("behaviour") / "project")
    config = project.config
    judge = {
        "kind": "checkpoint",
        "family": "llama",
        "path": "tiny",
        "judge": {"values": {"yes": 1, "no": 0}},
    }
    config["cards"] = {"backbones": {"organism": {"extends": "organism-llama-layer"}, "tiny-judge": judge}}
    config["backbones"] = ["organism"]
    config["datasets"] = {"identification": ["fraud", "weapons"], "utility": ["everyday"]}
    config["methods"] = {"snip": {}}
    config["refinements"] = ["raw"]
    config["samples"] = {"identify": 8, "candidates": 12, "evaluate": 12}
    config["responses"] = {"max_new_tokens": 24}
    config["behaviour"] = {
        "operations": {"base": [1.0], "transplant": [1.0]}, "controls": ["random", "change"], "draws": 19,
        "judges": ["tiny-judge"],
        "export": {"base": None},
        "constraint": {
            "replant": {
                "attack": "refuse", "start": "base", "steps": 60, "learning_rates": [0.003], "seeds": 1,
                "arms": ["only"], "controls": ["utility"],
            },
        },
    }  # fmt: skip
    project.config = config
    project.run(*TARGETS, EXPORTED)
    return project


@pytest.fixture(scope="module")
def planted(study):
    """The effects of the planted region on harmful prompts, by operation, measure and control."""
    frame = read_table(study.folder / "results/behaviour/effects.parquet", EFFECTS).to_pandas()
    frame = frame[
        (frame["method"] == "given") & (frame["name"] == "planted") & (frame["evaluated"] == "harmful")
    ]
    return frame.set_index(["operation", "measure", "against"])


def test_resetting_the_plant_gives_the_base_model(planted):
    """Positive control: the base answers everything, so refusals vanish; those of other layers remain."""
    row = planted.loc[("base", "refused", "none")]
    assert row["unmodified"] > 0.8
    assert row["changed"] < 0.1
    other = planted.loc[("base", "refused", "random")]
    assert other["control_effect"] > -0.3


def test_a_judge_reads_the_answers_of_every_model_that_generated_some(planted):
    """The judge has random weights: its values mean nothing, but each answer has one."""
    rows = planted.loc[["base", "transplant"]].xs("harm-tiny-judge", level="measure")
    assert {"none", "random"} <= set(rows.index.get_level_values("against"))
    assert ((rows["unmodified"] > 0) & (rows["unmodified"] < 1)).all()
    same = planted.loc[("base", "harm-tiny-judge", "random")]
    assert same["control_effect"] == 0.0, "layers that alignment did not change answer as before"


def test_training_the_plant_alone_plants_it_again(study):
    """Positive control: from the base, which answers everything, training the planted layer alone brings refusals."""
    path = study.folder / "results/behaviour/organism/given/planted.replant-0.constraint.parquet"
    frame = read_table(path, CONSTRAINT).to_pandas()
    odds = frame[(frame["measure"] == "refusal_log_odds") & (frame["evaluated"] == "harmful")]
    odds = odds.set_index(["arm", "control", "step"])["value"]
    refused = frame[(frame["measure"] == "refused") & (frame["evaluated"] == "harmful")].set_index("arm")[
        "value"
    ]
    assert odds["free", "none", 0] < 0 < odds["only", "region", 60]
    assert refused["only"] > 0.8


def test_the_region_of_an_ordinary_set_is_trained_in_the_place_of_a_methods_region(study):
    """A region from a file belongs to no method, so no other set has a region of its kind."""
    folder = study.folder / "results/behaviour/organism"
    found = {
        place: read_table(folder / f"{place}.replant-0.constraint.parquet", CONSTRAINT).to_pandas()["control"]
        for place in ("snip/fraud/row-0.05/raw", "given/planted")
    }
    assert set(found["snip/fraud/row-0.05/raw"]) == {"none", "region", "utility"}
    assert set(found["given/planted"]) == {"none", "region"}


def test_the_exported_model_without_its_plant_is_the_base_model(study):
    loaded = load_backbone({"template": "native"}, sorted((study.folder / EXPORTED).parent.iterdir()))
    base = load_file(study.folder / "results/organisms/organism/base.safetensors")
    assert all(torch.equal(weight, base[where]) for where, weight in loaded.weights())


def test_transplanting_the_plant_gives_the_aligned_model(planted):
    row = planted.loc[("transplant", "refused", "none")]
    assert row["unmodified"] < 0.1
    assert row["changed"] > 0.8
    assert planted.loc[("transplant", "refused", "random")]["control_effect"] < 0.3


def test_the_effect_of_the_plant_exceeds_that_of_every_other_layer(planted):
    for operation, sign in (("base", -1), ("transplant", 1)):
        row = planted.loc[(operation, "refusal_log_odds", "random")]
        assert row["draws"] == 3  # all other layers
        worst = {-1: row["control_low"], 1: row["control_high"]}[sign]
        assert sign * row["effect"] > sign * worst
        assert sign * row["difference_low" if sign > 0 else "difference_high"] > 0


def test_resetting_weights_that_alignment_did_not_change_has_no_effect(planted):
    """The organism is frozen outside the plant, so other layers are those of the base already."""
    row = planted.loc[("base", "kl", "random")]
    assert row["control_effect"] == row["control_low"] == row["control_high"] == 0.0


def test_the_page_claims_nothing_of_the_plant_beyond_the_weights_that_alignment_changed(study):
    """Those are the plant itself, and three other layers are too few draws."""
    page = (study.folder / "results/report/behaviour.html").read_text()
    plant = page.partition("organism / given / planted / raw")[2]
    assert "not larger than that of the weights that alignment changed most" in plant
    assert "organism / snip / row-0.05 / raw" in page


def test_a_second_run_has_nothing_to_do(study):
    assert study.plan(*TARGETS) == {}


def test_another_operation_plans_only_behaviour(study):
    before = study.config
    changed = before | {"behaviour": before["behaviour"] | {"operations": {"zero": None}}}
    try:
        study.config = changed
        plan = study.plan(*TARGETS)
        assert set(plan) == {
            "ablate", "ablate_given", "judge_answers", "compare_effects", "compare_effects_given", "gather_behaviour",
            "draw_behaviour",
            "draw_transfer", "write_behaviour",
        }  # fmt: skip
    finally:
        study.config = before


def test_another_set_scores_that_set_alone_and_every_region_is_measured_on_it(study):
    before = study.config
    try:
        study.config = before | {
            "datasets": before["datasets"] | {"identification": ["fraud", "hacking", "weapons"]}
        }
        plan = study.plan(*TARGETS)
        assert [plan[rule] for rule in ("write_responses", "score", "select_region")] == [1, 1, 1]
        assert plan["ablate"] == 3 and "train_organism" not in plan
    finally:
        study.config = before
