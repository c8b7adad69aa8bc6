"""The section `behaviour`: what it asks for, and every mistake in it is named."""

import pytest

from safety_regions.errors import StudyError
from safety_regions.study import ablations
from safety_regions.study.behaviour import constraint_presets, plans
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


def test_the_direction_is_taken_out_by_an_operation_of_its_own():
    """Jobs load it by name, so their code version must name it."""
    asked = [ablations.ablation_operations(study(controls=kinds)) for kinds in (["direction"], ["random"])]
    assert asked == [["orthogonalise", "zero"], ["zero"]]
    assert ablations.ablation_operations(read_study(STUDY)) == []


def test_subspaces_are_changed_by_linear_operations_and_not_fine_tuned():
    ranks = {"methods": {"snip": {}, "ranks": {"method": "actsvd"}}}
    linear = {"operations": dict.fromkeys(("base", "scale", "transplant", "zero"))}
    plan = {"attack": "ordinary", "steps": 4, "learning_rates": [0.001]}
    asked = read_study(STUDY | ranks | {"behaviour": linear | {"constraint": {"plain": plan}}})
    assert {cell.method for cell in ablations.tested_cells(asked)} == {"snip", "ranks"}
    assert {cell.method for cell in ablations.constrained_cells(asked)} == {"snip"}
    for section, place in (
        ({"operations": {"noise": None}}, "operations: noise"),
        ({"export": {"permute": None}}, "export: permute"),
        ({"constraint": {"plain": {**plan, "methods": ["ranks"]}}}, "constraint: plain: methods"),
    ):
        with pytest.raises(StudyError, match=f"{place}: found the regions of 'ranks', which are subspaces"):
            read_study(STUDY | ranks | {"behaviour": section})
    others = {"operations": {"noise": None}, "methods": ["snip"]}
    assert {
        cell.method for cell in ablations.tested_cells(read_study(STUDY | ranks | {"behaviour": others}))
    } == {"snip"}


def test_the_plan_has_default_doses():
    plan = ablations.plan(study(operations={"base": None, "scale": [0.0, 2.0]}))
    assert plan["operations"] == {"base": [1.0], "scale": [0.0, 2.0]}
    assert plan["draws"] == 19


def test_regions_of_other_sets_are_read_only_if_a_control_needs_them():
    job = {"method": "snip", "name": "fraud", "refinement": "minus-everyday"}
    assert ablations.compared_sets(study(controls=["random"]), job) == {"utility": [], "other": []}
    both = ablations.compared_sets(study(controls=["utility", "core"]), job)
    assert both == {"utility": ["lookalikes"], "other": ["weapons"]}
    plans = {"default": PLAN, "bare": PLAN | {"controls": ["random"]}}
    for refinement, expected in (("raw", ["everyday", "lookalikes"]), ("minus-everyday", ["lookalikes"])):
        jobs = [job | {"refinement": refinement, "plan": name} for name in plans]
        found = [ablations.constrained_utility(study(constraint=plans), one) for one in jobs]
        assert found == [expected, []]


def test_organisms_have_their_own_weights_before_alignment():
    with_base = study(operations={"base": None})
    assert ablations.reads_own_base(with_base, "organism-llama")
    assert not ablations.reads_own_base(study(controls=["random"]), "organism-llama")
    assert not ablations.reads_checkpoint_of_base(with_base, "organism-llama")


PLAN = {"attack": "ordinary", "steps": 10, "learning_rates": [0.001]}


def test_plans_alone_ablate_nothing():
    found = read_study(STUDY | {"behaviour": {"constraint": {"plain": PLAN | {"seeds": 2}}}})
    assert ablations.tested_cells(found) == [] and ablations.ablated_files(found) == []
    assert {cell.method for cell in ablations.constrained_cells(found)} == {"snip"}
    assert ablations.constraint_runs(found, "snip") == ["plain-0", "plain-1"]


def test_more_seeds_change_no_finished_run():
    plans = [
        ablations.constraint_plan(study(constraint={"plain": PLAN | {"seeds": n}}), "plain") for n in (2, 5)
    ]
    assert plans[0] == plans[1]
    assert plans[0]["controls"] == ["random", "change", "utility"] and plans[0]["batch"] == 8


def test_regions_of_adapters_are_not_constrained():
    changes = {
        "methods": {"nlsr": {}},
        "adapters": {"harmful": ["fraud"], "helpful": ["everyday"], "rank": 8},
        "behaviour": {"constraint": {"plain": PLAN}},
    }
    assert ablations.constrained_cells(read_study(STUDY | changes)) == {}


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
        ({"given": {"planted": "x"}}, "given: found 'planted'; expected another name"),
        ({"given": {"mine": "no/file"}}, "given: found no file no/file; expected a region file"),
        (
            {"given": {"mine": "{x}/{backbone}"}},
            "given: found no file {x}/organism-llama; expected a region file",
        ),
        ({"constraint": {"plain": PLAN | {"attack": "x"}}}, "constraint: plain: attack"),
        ({"backbones": ["other"]}, "backbones: unknown backbone 'other'"),
        ({"methods": ["wanda"]}, "methods: unknown method 'wanda'"),
        ({"refinements": ["minus-x"]}, "refinements: unknown refinement 'minus-x'"),
    ],
)
def test_mistakes_are_named(changes, said):
    with pytest.raises(StudyError) as caught:
        study(**changes)
    assert f"behaviour: {said}" in str(caught.value)


def test_a_section_without_experiments_is_refused():
    with pytest.raises(StudyError, match="behaviour: found neither operations nor plans of constraint"):
        read_study(STUDY | {"behaviour": {}})


def test_a_method_cannot_have_the_label_of_files():
    changes = {"methods": {"given": {"method": "snip"}}, "behaviour": {"operations": {"zero": None}}}
    with pytest.raises(StudyError, match="behaviour: methods: found a method labelled 'given'"):
        read_study(STUDY | changes)


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
    restore = section["constraint"]["additionalProperties"]["properties"]["restore"]
    for model, rule in (("aligned", section["operations"]), ("fine-tuned", restore)):
        named = [name for name, card in operation_cards().items() if model in card["acts"]]
        assert rule["description"].endswith(f"Operations: {', '.join(named)}.")


@pytest.mark.parametrize(
    ("operations", "restore", "message"),
    [
        ({"safelora": None}, {}, "behaviour: operations: unknown operation 'safelora'"),
        ({"orthogonalise": None}, {}, "behaviour: operations: unknown operation 'orthogonalise'"),
        ({}, {"zero": None}, "behaviour: constraint: plan: restore: unknown operation 'zero'"),
        ({}, {"nlsr_patch": [-1.0]}, "restore: nlsr_patch: found -1.0; expected 0 or more"),
    ],
)
def test_operations_are_named_where_they_can_be_used(operations, restore, message):
    plan = {"attack": "ordinary", "steps": 1, "learning_rates": [0.1], "restore": restore}
    with pytest.raises(StudyError, match=message):
        read_study(STUDY | {"behaviour": {"operations": operations, "constraint": {"plan": plan}}})


def test_what_restores_needs_a_base():
    plan = {
        "attack": "ordinary",
        "steps": 1,
        "learning_rates": [0.1],
        "controls": [],
        "restore": {"lox": None},
    }
    changes = {"backbones": ["smollm2-135m-instruct-q4"], "behaviour": {"constraint": {"plan": plan}}}
    with pytest.raises(StudyError, match="which has no base"):
        read_study(STUDY | changes)


def test_every_tested_region_is_exported_at_every_dose():
    asked = study(export={"scale": [0.5, -1.0]})
    found = ablations.exported_models(asked)
    assert len(found) == len(set(found)) == 2 * len(ablations.chosen_cells(asked)) * 2 > 0
    assert all(path.endswith(("/scale-0.5", "/scale--1")) for path in found)
    assert ablations.exported_models(read_study(STUDY)) == ablations.exported_models(study()) == []


@pytest.mark.parametrize(
    ("preset", "attack", "arms", "rates"),
    [
        ("wei_rewind", "comply", ["rewind"], None),  # 2402.05162, Table 3: set back after harmful fine-tuning
        ("sppft", "ordinary", ["freeze"], None),  # 2408.17003, Table 2: frozen, ordinary data
        ("qi_ordinary", "ordinary", ["freeze"], [2e-5]),  # 2310.03693: ordinary data, 2e-5
        ("sn_tune", "refuse", ["only"], [1e-6]),  # SN-Tune: only the safety neurons, on refusals, 1e-6
    ],
)
def test_presets_are_what_published_work_describes(preset, attack, arms, rates):
    own = {} if rates else {"learning_rates": [0.1]}
    planned = plans(study(constraint={"mine": {"preset": preset, "steps": 3, **own}}).behaviour)["mine"]
    assert (planned["attack"], planned["arms"], planned["learning_rates"]) == (attack, arms, rates or [0.1])
    assert "preset" not in planned and "source" not in planned
    changed = {"preset": preset, "steps": 3, "learning_rates": [0.5], "arms": ["only", "rewind"]}
    assert plans(study(constraint={"mine": changed}).behaviour)["mine"]["arms"] == ["only", "rewind"]


def test_every_preset_can_be_named():
    section = schema("config")["properties"]["behaviour"]["properties"]["constraint"]["additionalProperties"]
    assert section["properties"]["preset"]["enum"] == sorted(constraint_presets())


@pytest.mark.parametrize("key", ["attack", "learning_rates"])
def test_a_plan_says_what_it_teaches_and_how_fast(key):
    plan = {"attack": "ordinary", "steps": 1, "learning_rates": [0.1]}
    del plan[key]
    with pytest.raises(StudyError, match=f"constraint: mine: found no '{key}'"):
        study(constraint={"mine": plan})


def test_a_plan_that_starts_from_the_base_needs_one():
    plan = {"attack": "refuse", "start": "base", "steps": 1, "learning_rates": [0.1], "controls": []}
    changes = {"backbones": ["smollm2-135m-instruct-q4"], "behaviour": {"constraint": {"mine": plan}}}
    with pytest.raises(StudyError, match="which has no base"):
        read_study(STUDY | changes)


def test_what_restores_the_aligned_model_does_not_start_from_the_base():
    plan = {
        "attack": "refuse",
        "start": "base",
        "steps": 1,
        "learning_rates": [0.1],
        "restore": {"lox": None},
    }
    with pytest.raises(StudyError, match="restore: found a plan that starts from the base"):
        study(constraint={"mine": plan})


def test_a_judge_is_a_checkpoint_whose_card_says_how_it_judges():
    asked = study(judges=["strongreject-judge"])
    assert set(asked.judges) == {"strongreject-judge"} and "strongreject-judge" in asked.models
    assert ablations.judge_adapter(asked, "strongreject-judge") == []
    with pytest.raises(StudyError, match="judges: found 'smollm2-135m', which is no judge"):
        study(judges=["smollm2-135m"])
    with pytest.raises(StudyError, match="judges: unknown backbone 'nobody'"):
        study(judges=["nobody"])
    with pytest.raises(StudyError, match="no `operations`, whose answers they judge"):
        study(judges=["strongreject-judge"], operations={}, constraint={"plain": PLAN})


def test_a_plan_may_be_of_some_methods():
    found = study(
        constraint={"all": PLAN, "some": PLAN | {"methods": ["magnitude"]}}, methods=["snip", "magnitude"]
    )
    assert {run.rpartition("-")[0] for run in ablations.constraint_runs(found, "snip")} == {"all"}
    for method in ("magnitude", "given"):
        assert {run.rpartition("-")[0] for run in ablations.constraint_runs(found, method)} == {"all", "some"}
    assert "methods" not in ablations.constraint_plan(found, "some"), "no job runs again when methods change"
    with pytest.raises(StudyError, match="constraint: some: methods: unknown method 'nobody'"):
        study(constraint={"some": PLAN | {"methods": ["nobody"]}})


def test_tasks_of_lm_eval_are_ordinary_prompts_and_need_operations():
    asked = study(tasks={"arc_easy": 20, "gsm8k": None}, task_folder="mine")
    assert ablations.plan(asked)["tasks"] == {"arc_easy": 20, "gsm8k": None}
    assert ablations.plan(asked)["task_folder"] == "mine"
    assert ablations.roles(asked)["task-arc_easy"] == "ordinary"
    assert "tasks" not in ablations.plan(study()), "studies without tasks run no job again"
    with pytest.raises(StudyError, match="no `operations`, whose models they measure"):
        study(tasks={"arc_easy": 20}, operations={}, constraint={"plain": PLAN})
