"""A config that leaves a backbone without an adapter is refused before any job."""

import json

import pytest

from safety_regions.study.adapters import (
    CONFIG,
    WEIGHTS,
    given_files,
    plan_problems,
    rank_of,
    smallest_side,
    teachers,
)
from safety_regions.study.catalog import check, schema, with_defaults

RULES = schema("config")["properties"]["adapters"]
ORGANISM = {
    "architecture": {"hidden_size": 64, "intermediate_size": 96, "heads": 4, "kv_heads": 2, "head_dim": 16}
}
BACKBONES = {"small": ORGANISM, "real": {"repo": "a/b"}}


def problems(backbones=BACKBONES, **given) -> list[str]:
    return list(
        plan_problems(with_defaults({"rank": 16, "harmful": ["a"]} | given, RULES), backbones, "adapters")
    )


def test_a_good_plan_is_filled_in_by_the_paper():
    plan = with_defaults({}, RULES)
    assert (plan["rank"], plan["alpha"], plan["preference"]["beta"]) == (128, None, 0.1)
    assert problems() == []
    assert check({"harmful": ["a"], "supervised": {"steps": 3}}, RULES, "adapters") == []


def put_adapter(folder, **config) -> None:
    """Write the files of an adapter, without weights."""
    (folder / WEIGHTS).touch()
    settings = {"r": 8, "lora_alpha": 16, "base_model_name_or_path": "c/B"} | config
    (folder / CONFIG).write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "config,says",
    [
        ({"lora_alpha": None}, "no number `lora_alpha`"),
        ({"r": "8"}, "no number `r`"),
        ({"base_model_name_or_path": "a/b-base"}, "an adapter of 'a/b-base'; expected an adapter of 'a/b'"),
    ],
)
def test_a_given_adapter_is_looked_at_before_any_job(tmp_path, config, says):
    put_adapter(tmp_path, **config)
    assert any(says in line for line in problems({"real": {"repo": "a/b"}}, paths={"real": str(tmp_path)}))


def test_bases_that_tell_nothing_are_accepted(tmp_path):
    for base in (None, "", "/models/checkpoint-300", "b", "mirror/B"):
        put_adapter(tmp_path, base_model_name_or_path=base)
        assert problems({"real": {"repo": "a/b"}}, paths={"real": str(tmp_path)}) == []
    put_adapter(tmp_path, base_model_name_or_path="x/y")
    assert problems({"small": ORGANISM}, paths={"small": str(tmp_path)}) == [], "an organism has no such name"


@pytest.mark.parametrize("text", ["", "[]", "{,}"])
def test_a_damaged_adapter_config_is_named(tmp_path, text):
    put_adapter(tmp_path)
    (tmp_path / CONFIG).write_text(text)
    plan = with_defaults({"paths": {"real": str(tmp_path)}}, RULES)
    assert [f"{CONFIG} " in line for line in plan_problems(plan, {"real": {}}, "adapters")] == [True]
    assert rank_of(plan, "real") is None and rank_of(plan, "small") == 128
    put_adapter(tmp_path)
    assert rank_of(plan, "real") == 8


def test_an_adapter_may_be_given_in_place_of_training(tmp_path):
    plan = {"paths": {"small": str(tmp_path), "real": str(tmp_path)}, "harmful": [], "rank": 128}
    assert any("no file" in line for line in problems(**plan))
    put_adapter(tmp_path)
    assert problems(**plan) == []
    assert given_files(with_defaults({}, RULES), "small") == []


@pytest.mark.parametrize(
    "given,says",
    [
        ({"harmful": []}, ["harmful", "small, real"]),
        ({"rank": 33}, ["rank", "at most 32", "small"]),
        ({"paths": {"smal": "x"}}, ["unknown backbone 'smal'", "Did you mean 'small'"]),
    ],
)
def test_what_is_wrong_is_said(given, says):
    text = "\n".join(problems(**given))
    assert all(words in text for words in says), text


def test_teachers_are_listed_once_and_sides_are_those_of_the_layers():
    assert teachers({"harmful": ["a", "b"], "helpful": ["c", "a"]}) == ("a", "b", "c")
    assert smallest_side(ORGANISM["architecture"]) == 32
    assert smallest_side(None) is None
