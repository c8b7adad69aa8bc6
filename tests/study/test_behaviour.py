"""The section `behaviour`: what it asks for, and every mistake in it is named."""

import pytest

from safety_regions.errors import StudyError
from safety_regions.study import ablations
from safety_regions.study.catalog import schema
from safety_regions.study.config import read_study
from safety_regions.study.operation_shelf import operation_cards
from safety_regions.units.behaviour import CONTROLS

STUDY = {
    "backbones": ["organism-llama"],
    "datasets": {"identification": ["fraud", "weapons"], "utility": ["everyday", "lookalikes"]},
    "methods": {"snip": {}, "magnitude": {}},
    "samples": {"identify": 8, "candidates": 8, "evaluate": 4},
}


def study(**changes):
    section = {"operations": {"zero": None}} | changes
    return read_study(STUDY | {"behaviour": section})


def test_without_the_section_nothing_is_changed():
    assert ablations.tested_cells(read_study(STUDY)) == []


def test_data_free_methods_are_changed_only_if_asked_for():
    assert {cell.method for cell in ablations.tested_cells(study())} == {"snip"}
    assert {cell.method for cell in ablations.tested_cells(study(methods=["magnitude"]))} == {"magnitude"}


def test_cells_are_chosen_by_refinement():
    found = ablations.tested_cells(study(refinements=["raw", "minus-everyday"]))
    assert [cell.refinement for cell in found] == ["raw", "minus-everyday"]


def test_the_plan_has_default_doses():
    plan = ablations.plan(study(operations={"base": None, "scale": [0.0, 2.0]}))
    assert plan["operations"] == {"base": [1.0], "scale": [0.0, 2.0]}
    assert plan["draws"] == 19


def test_regions_of_other_sets_are_read_only_if_a_control_needs_them():
    job = {"method": "snip", "name": "fraud", "refinement": "minus-everyday"}
    assert ablations.compared_sets(study(controls=["random"]), job) == {"utility": [], "other": []}
    both = ablations.compared_sets(study(controls=["utility", "core"]), job)
    assert both == {"utility": ["lookalikes"], "other": ["weapons"]}


def test_organisms_have_their_own_weights_before_alignment():
    with_base = study(operations={"base": None})
    assert ablations.reads_own_base(with_base, "organism-llama")
    assert not ablations.reads_own_base(study(controls=["random"]), "organism-llama")
    assert not ablations.reads_checkpoint_of_base(with_base, "organism-llama")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"operations": {"zro": None}}, "operations: unknown operation 'zro'. Did you mean 'zero'?"),
        (
            {"operations": {"zero": [0.5]}},
            "operations: zero: found 0.5; expected 1, because it has no other dose",
        ),
        ({"operations": {"base": [0]}}, "operations: base: found 0; expected a dose that changes something"),
        ({"controls": ["randm"]}, "controls"),
        ({"backbones": ["other"]}, "backbones: unknown backbone 'other'"),
        ({"methods": ["wanda"]}, "methods: unknown method 'wanda'"),
        ({"refinements": ["minus-x"]}, "refinements: unknown refinement 'minus-x'"),
    ],
)
def test_mistakes_are_named(changes, said):
    with pytest.raises(StudyError) as caught:
        study(**changes)
    assert f"behaviour: {said}" in str(caught.value)


def test_effects_need_held_out_prompts():
    with pytest.raises(StudyError, match="behaviour: found `samples: evaluate` of 0"):
        read_study(
            STUDY
            | {"samples": STUDY["samples"] | {"evaluate": 0}, "behaviour": {"operations": {"zero": None}}}
        )


def test_a_backbone_without_a_base_cannot_be_reset():
    changes = {"backbones": ["smollm2-135m-instruct-q4"], "behaviour": {"operations": {"base": None}}}
    with pytest.raises(StudyError, match="'smollm2-135m-instruct-q4', which has no base"):
        read_study(STUDY | changes)


def test_the_schema_names_all_controls_and_operations():
    section = schema("config")["properties"]["behaviour"]["properties"]
    assert tuple(section["controls"]["items"]["enum"]) == CONTROLS
    assert all(name in section["operations"]["description"] for name in operation_cards())
