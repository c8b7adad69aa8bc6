"""Organisms are grouped if only the place of the plant and the training seed differ; equal places are equal regions."""

import pytest
import yaml

from safety_regions.study.config import read_study
from safety_regions.study.facts import planted_cards
from safety_regions.study.plants import group_of, place_of
from safety_regions.training.plant import truth_region
from tests.paths import ROOT
from tests.tiny import tiny_backbone

BASE = {"extends": "organism-llama-layer"}


def study(**cards):
    return read_study(
        {
            "backbones": ["organism-llama", *cards],
            "datasets": {"identification": ["fraud"]},
            "methods": {"magnitude": {}},
            "cards": {"backbones": {name: {**BASE, **card} for name, card in cards.items()}},
        }
    )


@pytest.mark.parametrize(
    "own",
    [
        {"plant": {"layers": [2]}},
        {"training": {"seed": 7}},
        {"title": "Other", "note": "Another note."},
        {"plant": {"seed": 3}},
    ],
)
def test_place_seed_and_words_do_not_divide_a_group(own):
    found = study(other={"plant": {"layers": [3]}}, one={}, two=own)
    assert group_of(found, "two") == ["two", "other", "one"] and group_of(found, "other")[0] == "other"
    assert {card["group"] for card in planted_cards(found).values()} == {"other"}


@pytest.mark.parametrize(
    "own",
    [
        {"plant": {"layers": [1, 2]}},
        {"plant": {"norm": "matched"}},
        {"training": {"align": {"steps": 151}}},
        {"architecture": {"intermediate_size": 200}},
        {"required_refusal": 0.8},
        {"extends": "organism-llama-neurons"},
        {"extends": "organism-qwen-layer"},
    ],
)
def test_everything_else_divides(own):
    found = study(one={}, two=own)
    assert group_of(found, "one") == ["one"] and group_of(found, "two") == ["two"]
    assert {name: card["group"] for name, card in planted_cards(found).items()} == {
        "one": "one",
        "two": "two",
    }


def test_draws_and_projections_are_places():
    neurons, lora = {"extends": "organism-llama-neurons"}, {"extends": "organism-llama-lora"}
    found = study(
        n0=neurons, n1={**neurons, "plant": {"seed": 1}},
        q=lora, k={**lora, "plant": {"lora": {"projections": ["k", "o"]}}},
        three={**lora, "plant": {"lora": {"rank": 3}}},
    )  # fmt: skip
    assert group_of(found, "n1") == ["n1", "n0"] and group_of(found, "q") == ["q", "k"]
    assert group_of(found, "three") == ["three"]
    places = {name: card["place"] for name, card in planted_cards(found).items()}
    assert places == {"n0": "draw 0", "n1": "draw 1", "q": "q, v", "k": "k, o", "three": "q, v"}


PLANTS = [
    *({"layers": layers, "seed": seed} for layers in ([0], [1], [0, 2], [2, 0]) for seed in (0, 1)),
    *({place: 0.25, "seed": seed} for place in ("neurons", "weights") for seed in (0, 1)),
    *({"lora": {"rank": 2, "projections": p}, "seed": 0} for p in (["q", "v"], ["v", "q"], ["k", "o"])),
]


def test_equal_places_of_a_kind_are_equal_regions():
    backbone = tiny_backbone("llama")
    regions = [truth_region(backbone, {**plant, "norm": "free"}, {}) for plant in PLANTS]
    for a, one in zip(PLANTS, regions, strict=True):
        for b, other in zip(PLANTS, regions, strict=True):
            if a.keys() == b.keys():
                same = all((one.masks[w] == other.masks[w]).all() for w in one.masks)
                assert same == (place_of(a) == place_of(b)), (a, b)


def test_the_shipped_study_rotates_its_plants():
    found = read_study(yaml.safe_load((ROOT / "config/planted.yaml").read_text()), "planted.yaml")
    cards = planted_cards(found)
    groups = {}
    for name, card in cards.items():
        groups.setdefault(card["group"], []).append(name)
    assert set(cards) == set(found.backbones) and all(len(names) > 1 for names in groups.values())
    for names in groups.values():
        assert len({cards[name]["place"] for name in names}) > 1
        assert len({(cards[name]["place"], cards[name]["seed"]) for name in names}) == len(names)
        llama = cards[names[0]]["family"] == "llama"
        assert len({cards[name]["seed"] for name in names}) >= (3 if llama else 2)
    layers = {cards[name]["place"] for name in groups["layer-0-seed-0"]}
    assert layers == {f"layer {i}" for i in range(4)}
