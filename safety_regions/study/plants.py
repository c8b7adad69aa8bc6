"""Groups of planted organisms that differ only in where their region is planted, and in the training seed.

Where two members were planted at other places, each says what scores look like at the other's place without a plant.
"""

from collections.abc import Callable
from typing import NamedTuple

from safety_regions.study.config import Study
from safety_regions.study.grid import training


class Place(NamedTuple):
    """A key of ``plant`` in a card: the words for where it plants, and what places of one group have in common."""

    where: Callable[[dict], str]
    kind: Callable[[dict], object]


def _drawn(key: str) -> Place:
    return Place(lambda p: f"draw {p['seed']}", lambda p: p[key])


PLACES = {
    "layers": Place(
        lambda p: f"layer{'s' * (len(p['layers']) > 1)} {', '.join(map(str, sorted(p['layers'])))}",
        lambda p: len(p["layers"]),
    ),
    "neurons": _drawn("neurons"),
    "weights": _drawn("weights"),
    "lora": Place(
        lambda p: ", ".join(sorted(p["lora"]["projections"])),
        lambda p: [p["lora"]["rank"], len(p["lora"]["projections"])],
    ),
}


def place_of(plant: dict) -> str:
    """Where the ``plant`` of a card (defaults filled in) lies, in words: equal words are equal planted regions."""
    return PLACES[_key(plant)].where(plant)


def _key(plant: dict) -> str:
    return next(key for key in PLACES if key in plant)


def kind_of(card: dict) -> dict:
    """What the members of a group have in common: the card without title, note, training seed, and the place."""
    key = _key(card["plant"])
    plant = {"norm": card["plant"]["norm"], key: PLACES[key].kind(card["plant"])}
    seedless = {name: value for name, value in card["training"].items() if name != "seed"}
    return training({**card, "training": seedless, "plant": plant})


def group_of(study: Study, organism: str) -> list[str]:
    """The planted organisms of the study of one group with this one: itself, then the others in the config's order."""
    own = kind_of(study.backbones[organism])
    others = [name for name in study.planted if name != organism and kind_of(study.backbones[name]) == own]
    return [organism, *others]
