"""The report's description of a study must follow its config."""

import json

import pytest

from safety_regions.study.config import Study, read_study
from safety_regions.study.facts import (
    backbone_facts,
    base_reading_methods,
    data_free_methods,
    method_facts,
    planted_cards,
    quantised_weights,
    study_facts,
)

CARD = {"kind": "checkpoint", "title": "Tiny", "repo": "nobody/tiny", "family": "llama"}


def study(**changes) -> Study:
    config = {
        "backbones": ["tiny"],
        "datasets": {"identification": ["fraud", "hacking"], "utility": ["everyday"]},
        "methods": {"strict": {"method": "wanda", "selections": ["row-0.01"]}},
        "samples": {"identify": 20, "candidates": 30, "evaluate": 5},
        "cards": {"backbones": {"tiny": CARD}},
    }
    return read_study({**config, **changes})


def facts(**changes) -> dict[str, list[str]]:
    return study_facts(study(**changes))


def test_the_page_says_what_subspaces_do_not_have():
    assert not any("Regions of" in term for term in facts())
    found = facts(methods={"ranks": {"method": "actsvd"}, "wanda": {}})
    assert "no IoU of more than two sets" in found["Regions of ranks"][1]


def test_the_facts_are_those_of_the_config():
    found = facts()
    assert backbone_facts(study()) == {"tiny": {"kind": "checkpoint", "title": "Tiny"}}
    strict = method_facts(study())["strict"]
    assert (strict["method"], strict["units"], strict["selections"]) == ("wanda", "weights", "row-0.01")
    assert found["Identification sets (one region each)"] == ["fraud, hacking"]
    assert found["Refinements"] == ["raw, minus-everyday"]
    assert "up to 30" in found["Prompts"][0] and "up to 20" in found["Prompts"][1]


def test_the_facts_say_what_is_subtracted_and_whose_weights_are_asked_for():
    methods = {
        "mine": {
            "method": "signed_snip",
            "selections": ["row-0.01"],
            "minus": {"method": "snip", "selection": "row-0.05"},
        },
        "snip": {"minus": {"selection": "row-0.02"}},
    }
    found = method_facts(study(methods=methods))
    assert found["mine"]["weights that carry"] == "refusals" and found["snip"]["weights that carry"] == ""
    mixed = method_facts(study(methods=methods, responses={"keep_identification": "all"}))
    assert mixed["mine"]["weights that carry"] == "the responses, refused or not"
    assert found["mine"]["subtracts"] == "the utility regions of snip with selection row-0.05"
    assert found["snip"]["subtracts"] == "its own utility regions with selection row-0.02"


@pytest.mark.parametrize(
    "origin, word",
    [("backbone", "answers of the backbone"), ("dataset", "not from the backbone"), ("fixed", "one text")],
)
def test_the_facts_say_whose_responses_they_are(origin, word):
    fixed = {"text": "No.", "keep_identification": "all", "keep_utility": "all"} if origin == "fixed" else {}
    assert word in facts(responses={"origin": origin, **fixed})["Responses"][0]


def test_a_study_without_utility_sets_says_so():
    assert facts(datasets={"identification": ["fraud"]})["Utility sets (subtracted from each region)"] == [
        "none"
    ]


def test_only_quantised_checkpoints_are_said_to_be_quantised(tmp_path):
    """A GGUF file can also hold the original weights."""
    files = []
    for name, tensors in {"small": {"F32": 3, "Q4_1": 7}, "whole": {"F32": 3, "BF16": 7}}.items():
        files.append(tmp_path / name / "gguf.json")
        files[-1].parent.mkdir()
        files[-1].write_text(json.dumps({"source": f"{name}.gguf", "sha256": "0" * 64, "tensors": tensors}))
    (line,) = quantised_weights(files)["Quantised weights"]
    assert line.startswith("small: the weights of small.gguf, dequantised (3 F32, 7 Q4_1 tensors)")
    assert quantised_weights(files[1:]) == {}


def test_the_options_of_a_method_are_those_it_runs_with():
    methods = {"sum": {"method": "snip", "options": {"loss": "sum"}}, "size": {"method": "magnitude"}}
    found = method_facts(study(methods=methods))
    assert "loss sum" in found["sum"]["options"] and found["sum"]["reads prompts"] == "yes"
    assert found["size"]["options"] == "none" and found["size"]["reads prompts"].startswith("no")
    assert "row 0.05" in found["sum"]["stored scores"]


def test_a_base_is_named_beside_its_backbone():
    base = {key: value for key, value in CARD.items() if key != "title"} | {"repo": "nobody/base"}
    cards = {"backbones": {"tiny": CARD | {"base": "plain"}, "plain": base}}
    assert backbone_facts(study(cards=cards))["tiny"]["base"] == "plain"


def test_methods_that_look_at_no_prompt_are_known_by_their_module():
    methods = {
        "random": {"method": "wanda", "selections": ["row-0.01"]},
        "size": {"method": "magnitude", "selections": ["row-0.01"]},
        "dice": {"method": "random", "selections": ["row-0.01"]},
    }
    assert data_free_methods(study(methods=methods)) == ["size", "dice"]


def test_methods_that_read_the_base_are_known_by_their_module_or_an_option():
    methods = {
        "wanda": {},
        "change": {"method": "wanda", "options": {"difference": True}},
        "size": {"method": "delta"},
    }
    asked = {"backbones": ["organism-llama"], "methods": methods}
    assert base_reading_methods(study(**asked)) == ["change", "size"]


def test_a_study_without_organisms_has_no_planted_card():
    assert planted_cards(study()) == {}
