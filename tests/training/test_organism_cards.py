"""The organism cards of the catalog follow their schema, and the schema finds mistakes."""

import pytest

from safety_regions.study.catalog import CATALOG, Shelf, check, schema, with_defaults
from safety_regions.training.architecture import SIZES
from safety_regions.training.plant import PLACES
from tests.training.organisms import FAMILIES, small_card

RULES = schema("organism")
NAMES = sorted(path.stem for path in (CATALOG / "backbones").glob("organism-*.yaml"))
SHELF = Shelf("backbones", {})


def card(name: str) -> dict:
    return with_defaults(SHELF.read(name), RULES)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_keeps_the_schema_and_names_sets_of_the_right_role(name):
    assert check(SHELF.read(name), RULES, name) == []
    datasets = Shelf("datasets", {})
    roles = {"harmful": "identification", "unseen": "identification", "helpful": "utility"}
    for role, expected in roles.items():
        for dataset in card(name)["training"][role]:
            assert datasets.read(dataset)["role"] == expected


def test_the_catalog_holds_four_families_and_grouped_query_attention():
    cards = [card(name) for name in NAMES]
    assert len({c["family"].rstrip("0123456789") for c in cards}) == 4
    architectures = [c["architecture"] for c in cards if "base" not in c]
    assert any(sizes["heads"] > sizes["kv_heads"] for sizes in architectures)
    assert all(sizes["layers"] >= 4 for sizes in architectures)
    # A small part of a pretrained model learns less than the whole.
    required = [0.6 if "base" in c and "plant" in c else 0.9 for c in cards]
    assert all(c["required_refusal"] >= least for c, least in zip(cards, required, strict=True))
    # Frozen embeddings generalise a little worse, which shows in the planted Qwen3. A pretrained model takes some short
    # questions of Dolly for harmful ones.
    allowed = [
        (0.25 if "plant" in c else 0.2) if "base" in c else 0.15 if "plant" in c else 0.1 for c in cards
    ]
    assert all(c["allowed_over_refusal"] <= most for c, most in zip(cards, allowed, strict=True))


def test_the_schema_and_the_code_know_the_same_families_and_sizes():
    assert RULES["properties"]["family"]["enum"] == sorted(FAMILIES)
    extras = {key for family in FAMILIES.values() for key in family.organism.values()}
    assert set(RULES["properties"]["architecture"]["properties"]) == {*SIZES, "vocab_size", *extras}


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


@pytest.mark.parametrize(
    "plant",
    [
        {"layers": [0, 3]},
        {"neurons": 0.1, "norm": "matched", "seed": 4},
        {"weights": 1},
        {"lora": {"rank": 1, "projections": ["down"]}, "norm": "free"},
    ],
)
def test_every_place_can_be_planted_and_defaults_are_filled_in(plant):
    assert check(small_card() | {"plant": plant}, RULES, "card") == []
    filled = with_defaults(small_card() | {"plant": plant}, RULES)["plant"]
    assert filled == {"norm": "free", "seed": 0} | plant


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        ({}, "exactly one of: layers; neurons; weights; lora"),
        ({"seed": 1}, "exactly one of"),
        ({"layers": [1], "weights": 0.1}, "exactly one of"),
        ({"weights": 0.1, "sead": 1}, "Did you mean 'seed'"),
        ({"layers": []}, "at least 1"),
        ({"layers": [1, 1]}, "more than once"),
        ({"neurons": 0}, "more than 0"),
        ({"weights": 1.5}, "at most 1"),
        ({"weights": 0.1, "norm": "mached"}, "'matched'"),
        ({"lora": {"rank": 4, "projections": ["q"]}, "norm": "matched"}, "expected 'free'"),
        ({"lora": {"rank": 4, "projections": ["w"]}}, "one of"),
        ({"lora": {"rank": 4}}, "no 'projections'"),
    ],
)
def test_mistakes_of_a_plant_are_found(plant, found):
    (problem,) = check(small_card() | {"plant": plant}, RULES, "card")
    assert found in problem


def test_planted_cards_have_the_sizes_of_the_family_they_are_compared_with():
    planted = {name: card(name) for name in NAMES if "plant" in card(name)}
    assert {place for c in planted.values() for place in c["plant"]} >= set(PLACES) - {None}
    for name, own in planted.items():
        family, place = name.removeprefix("organism-").split("-")[:2]
        unplanted = card(f"organism-{family}")
        assert [own.get(key) for key in ("architecture", "base")] == [
            unplanted.get(key) for key in ("architecture", "base")
        ]
        assert own["training"]["careful"] == ("architecture" in own), "a pretrained model knows how to refuse"
        assert place in own["plant"] or f"{place}s" in own["plant"]
        assert name.endswith("-matched") == (own["plant"]["norm"] == "matched")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sliding_window_is_needed_or_refused_as_the_family_says(family):
    document = small_card(family)
    assert check(document, RULES, "card") == []
    if "sliding_window" in document["architecture"]:
        del document["architecture"]["sliding_window"]
    else:
        document["architecture"]["sliding_window"] = 8
    (problem,) = check(document, RULES, "card")
    assert "sliding_window" in problem
