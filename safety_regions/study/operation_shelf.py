"""List the operations of the package from syntax trees, without importing an operation or torch.

An operation is a file ``behaviour/operations/{name}.py``.
"""

from functools import cache
from pathlib import Path

from safety_regions.errors import raise_all
from safety_regions.study.catalog import check, schema, with_defaults
from safety_regions.study.method_shelf import read_card

SHELF = Path(__file__).parents[1] / "behaviour" / "operations"
ROOM = "safety_regions.behaviour.operations"
ALIGNED, FINE_TUNED = "aligned", "fine-tuned"
"""The models whose regions an operation can change (CARD: ``acts``); ``whole`` is the whole aligned model only."""


@cache
def operation_cards() -> dict[str, dict]:
    """Operation name -> its CARD with defaults filled in.

    Raises:
        StudyError: an operation has no CARD, or one that violates `schemas/operation.schema.yaml`.
    """
    cards, problems = {}, []
    for path in sorted(SHELF.glob("[!_]*.py")):
        card = read_card(path)
        problems += check(card, schema("operation"), f"operations/{path.name}: CARD")
        cards[path.stem] = with_defaults(card, schema("operation")) if isinstance(card, dict) else {}
    raise_all("Invalid CARD of an operation", problems)
    return cards


def operation_module(name: str) -> str:
    """The dotted module of an operation."""
    return f"{ROOM}.{name}"


def dose_problems(name: str, doses: list[float]) -> list[tuple[str, str]]:
    """What is wrong with the doses of an operation: (found, expected) of each problem."""
    card = operation_cards()[name]
    if card["neutral"] is None and not card["into_base"] and ALIGNED in card["acts"]:
        wrong = [dose for dose in doses if dose != 1]
        return [(str(dose), "1, because it has no other dose") for dose in wrong]
    least = card["least"]
    wrong = [dose for dose in doses if least is not None and dose < least]
    found = [(str(dose), f"{least:g} or more") for dose in wrong]
    return found + [(str(d), "a dose that changes something") for d in doses if d == card["neutral"]]
