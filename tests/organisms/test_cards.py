"""The organism cards of the catalog, and the schema they keep."""

import pytest

from safety_regions.catalog import CATALOG, Shelf, check, schema, with_defaults
from safety_regions.organisms.architecture import FAMILIES, SIZES
from tests.organisms.sample import small_card

RULES = schema("organism")
NAMES = sorted(path.stem for path in (CATALOG / "backbones").glob("organism-*.yaml"))
SHELF = Shelf("backbones", {})


def card(name: str) -> dict:
    return with_defaults(SHELF.read(name), RULES)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_keeps_the_schema_and_names_sets_of_the_right_role(name):
    assert check(SHELF.read(name), RULES, name) == []
    datasets = Shelf("datasets", {})
    for role, expected in (("harmful", "identification"), ("helpful", "utility")):
        for dataset in card(name)["training"][role]:
            assert datasets.read(dataset)["role"] == expected


def test_the_catalog_holds_four_families_and_grouped_query_attention():
    cards = [card(name) for name in NAMES]
    assert len({c["family"].rstrip("0123456789") for c in cards}) == 4
    assert any(c["architecture"]["heads"] > c["architecture"]["kv_heads"] for c in cards)
    assert all(c["architecture"]["layers"] >= 4 for c in cards)
    assert all((c["required_refusal"], c["allowed_over_refusal"]) == (0.9, 0.1) for c in cards)


def test_the_schema_and_the_code_know_the_same_families_and_sizes():
    assert set(RULES["properties"]["family"]["enum"]) == set(FAMILIES)
    sizes = set(RULES["properties"]["architecture"]["properties"])
    assert sizes == {*SIZES, "vocab_size", "sliding_window"}


def described(rules: dict) -> list[bool]:
    nested = [*rules.get("properties", {}).values()]
    return ["description" in rules, *(flag for rule in nested for flag in described(rule))]


def test_every_key_is_described():
    assert all(described(RULES))
    assert all(described(phase) for phase in RULES["$defs"]["phase"]["properties"].values())


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        (("sead",), 1, "unknown key 'sead'"),
        (("training", "sead"), 1, "Did you mean 'seed'"),
        (("training", "base", "stepps"), 1, "Did you mean 'steps'"),
        (("architecture", "head_dim"), 7, "head_dim"),
        (("architecture", "sliding_window"), 8, "sliding_window"),
        (("family",), "lama", "llama"),
        (("training", "harmful"), [], "at least 1"),
    ],
)
def test_mistakes_are_found(path, value, found):
    document = small_card()
    assert check(document, RULES, "card") == []
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (problem,) = check(document, RULES, "card")
    assert found in problem


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_a_family_with_a_sliding_window_needs_one(family):
    document = small_card(family)
    assert check(document, RULES, "card") == []
    del document["architecture"]["sliding_window"]
    (problem,) = check(document, RULES, "card")
    assert "sliding_window" in problem
