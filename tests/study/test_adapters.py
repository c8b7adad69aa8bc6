"""A config that leaves a backbone without an adapter is refused before any job."""

import pytest

from safety_regions.study.adapters import given_files, plan_problems, smallest_side, teachers
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


def test_an_adapter_may_be_given_in_place_of_training(tmp_path):
    plan = {"paths": {"small": str(tmp_path), "real": str(tmp_path)}, "harmful": [], "rank": 128}
    assert any("no file" in line for line in problems(**plan))
    for file in given_files(with_defaults(plan, RULES), "small"):
        open(file, "w").close()
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
