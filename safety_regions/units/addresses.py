"""Addresses: where the units of a region lie, e.g. ``layers.12.q``; "layers" where units are whole layers."""

from collections.abc import Iterable
from typing import NamedTuple

from safety_regions.errors import StudyError, explain

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")


LAYERS = "layers"


# What stands behind the layer in an address, in flat order: a projection's weight, or the factors A and B of a LoRA
# adapter on it (``layers.3.q.A``).
MATRICES = tuple(f"{projection}{factor}" for projection in PROJECTIONS for factor in ("", ".A", ".B"))


class Place(NamedTuple):
    """Where an address lies: decoder block (0-based) and projection, both None where units are whole layers.

    The projection is one of `MATRICES`: ``q``, or ``q.A`` and ``q.B`` of an adapter.
    """

    layer: int | None
    projection: str | None


def address(layer: int, projection: str) -> str:
    """The address of one projection in one decoder block, e.g. ``layers.12.q`` or ``layers.12.q.A``."""
    return f"{LAYERS}.{layer}.{projection}"


def parse_address(text: str) -> Place:
    """The layer and projection of an address; ``Place(None, None)`` for "layers", where units are whole layers.

    Raises:
        StudyError: the text is no address.
    """
    if text == LAYERS:
        return Place(None, None)
    layer, _, projection = text.removeprefix(f"{LAYERS}.").partition(".")
    if projection not in MATRICES or not layer.isdecimal() or address(int(layer), projection) != text:
        raise StudyError(explain(f"address '{text}'", "an unknown form", f"'{LAYERS}' or e.g. layers.12.q"))
    return Place(int(layer), projection)


def sort_addresses(addresses: Iterable[str]) -> list[str]:
    """Addresses in the order of flat indices: by layer, then q k v o gate up down (of adapters q.A q.B k.A ...)."""
    places = {parse_address(text): text for text in addresses}
    order = {projection: i for i, projection in enumerate((None, *MATRICES))}
    return [places[p] for p in sorted(places, key=lambda p: (p.layer or 0, order[p.projection]))]
