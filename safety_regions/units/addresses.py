"""Addresses of a region's units, e.g. ``layers.12.q``; ``layers.12.heads`` of heads, "layers" of whole layers."""

from collections.abc import Iterable
from typing import NamedTuple

from safety_regions.errors import StudyError, explain

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")


LAYERS = "layers"
WRITERS = ("o", "down")
"""Projections whose outputs are added to the residual stream."""


# The part of an address after the layer, in flat order: a projection's weight, or the factors A and B of a LoRA
# adapter on it (``layers.3.q.A``).
MATRICES = tuple(f"{projection}{factor}" for projection in PROJECTIONS for factor in ("", ".A", ".B"))
HEADS = "heads"
"""The part of an address after the layer for attention heads, which own weights of several projections."""
PARTS = (*MATRICES, HEADS)
"""All words that can follow the layer in an address, in flat order; the words of columns ``projection`` in tables."""


class Place(NamedTuple):
    """Decoder block (0-based) and projection of an address; both are None if units are whole layers.

    The projection is one of `PARTS`: ``q``, or ``q.A`` and ``q.B`` for an adapter, or ``heads``.
    """

    layer: int | None
    projection: str | None


def address(layer: int, projection: str) -> str:
    """The address of one projection in one decoder block, e.g. ``layers.12.q`` or ``layers.12.q.A``."""
    return f"{LAYERS}.{layer}.{projection}"


def parse_address(text: str) -> Place:
    """Parse an address into layer and projection; ``Place(None, None)`` for "layers".

    Raises:
        StudyError: the text is not an address.
    """
    if text == LAYERS:
        return Place(None, None)
    layer, _, projection = text.removeprefix(f"{LAYERS}.").partition(".")
    if projection not in PARTS or not layer.isdecimal() or address(int(layer), projection) != text:
        raise StudyError(explain(f"address '{text}'", "an unknown form", f"'{LAYERS}' or e.g. layers.12.q"))
    return Place(int(layer), projection)


def sort_addresses(addresses: Iterable[str]) -> list[str]:
    """Sort addresses by layer, then q k v o gate up down (for adapters q.A q.B k.A ...): the order of flat indices."""
    places = {parse_address(text): text for text in addresses}
    order = {projection: i for i, projection in enumerate((None, *PARTS))}
    return [places[p] for p in sorted(places, key=lambda p: (p.layer or 0, order[p.projection]))]


# Scope -> a label of each address: units of addresses with one label are ranked together, so that the size of a region
# is fixed there. (Scope row ranks within each row of an address.)
STRATA = {
    "row": str,
    "matrix": str,
    "layer": lambda where: parse_address(where).layer,
    "global": lambda where: "",
}
