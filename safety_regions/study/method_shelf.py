"""List the methods of the package from syntax trees, without importing a method or torch.

A method is a file ``methods/{name}.py``, or a folder ``methods/{name}/`` with a file ``method.py`` and optionally
``selection.py`` (its own selections) and ``sweep.py``.
"""

import ast
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from safety_regions.errors import StudyError, explain, raise_all
from safety_regions.study.catalog import check, schema, with_defaults
from safety_regions.units.granularity import GRANULARITIES, Granularity
from safety_regions.units.selections import RANKED

SHELF = Path(__file__).parents[1] / "methods"
ROOM = "safety_regions.methods"


@cache
def method_cards() -> dict[str, dict]:
    """Method name -> its CARD with defaults filled in.

    Raises:
        StudyError: a method has no CARD, or one that violates `schemas/method.schema.yaml`; all problems are listed.
    """
    cards, problems = {}, []
    for name, path in _files().items():
        card, where = read_card(path), f"methods/{path.relative_to(SHELF)}: CARD"
        problems += check(card, schema("method"), where) or _problems(card, where)
        cards[name] = _filled(card) if isinstance(card, dict) else {}
    raise_all("Invalid CARD of a method", problems)
    return cards


def granularity_of(method: str) -> Granularity:
    """The granularity of a method's units, with the projections that the method scores."""
    card = method_cards()[method]
    kind = GRANULARITIES[card["granularity"]]
    return replace(kind, projections=tuple(card["projections"])) if card["projections"] else kind


@cache
def own_selection(method: str, text: str) -> dict | None:
    """The entry of a method's ``own_selections`` that matches a selection; None for a selection by rank."""
    own = method_cards()[method]["own_selections"].values()
    return next((entry for entry in own if re.fullmatch(entry["pattern"], text)), None)


def method_module(name: str, part: str = "method") -> str:
    """The dotted module of a part of a method: method, selection or sweep. For a method in one file, that file."""
    path = _files()[name]
    if path.stem != "method":
        return f"{ROOM}.{name}"
    return f"{ROOM}.{name}.{part if path.with_name(f'{part}.py').is_file() else 'method'}"


@cache
def _files() -> dict[str, Path]:
    folders = {path.parent.name: path for path in SHELF.glob("*/method.py")}
    return dict(sorted({**folders, **{path.stem: path for path in SHELF.glob("[!_]*.py")}}.items()))


def read_card(path: Path) -> object:
    """The literal dict `CARD` of a module, read from its syntax tree.

    Raises:
        StudyError: there is none, or it is not a literal.
    """
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", None) == "CARD" for t in node.targets):
            try:
                return ast.literal_eval(node.value)
            except ValueError:
                raise StudyError(explain(path, "a CARD with an expression", "only literals")) from None
    raise StudyError(explain(path, "no CARD = {...} at the top level", "a dict of literals"))


def _problems(card: dict, where: str) -> list[str]:
    """Checks beyond the schema: named options exist; a pattern matches its example, which is no selection by rank."""
    found, options = [], card.get("options", {})
    named = [card["sweep"]["option"]] if "sweep" in card else []
    named += ["contrast"] if card.get("contrast") else []
    named += [card[key] for key in ("rank_fraction", "base", "asks_for") if isinstance(card.get(key), str)]
    found += [
        explain(where, f"no option '{name}'", "an option of that name")
        for name in named
        if name not in options
    ]
    possible = GRANULARITIES[card["granularity"]].projections
    for name in card.get("projections") or ():
        if name not in possible:
            expected = f"those with {card['granularity']} units: {', '.join(possible)}"
            found.append(explain(f"{where}: projections", f"'{name}'", expected))
    for name, entry in card.get("own_selections", {}).items():
        place = f"{where}: own_selections: {name}"
        if not re.fullmatch(entry["pattern"], entry["example"]):
            found.append(
                explain(place, f"example '{entry['example']}'", f"one that matches {entry['pattern']}")
            )
        if re.fullmatch(RANKED, entry["example"]):
            expected = "a form that differs from selections by rank ({scope}-{fraction})"
            found.append(explain(place, f"example '{entry['example']}'", expected))
        if entry.get("sweep") and "sweep" not in card:
            found.append(
                explain(place, "a selection from a sweep, but no sweep in the CARD", "the key `sweep`")
            )
    return found


def _filled(card: dict) -> dict:
    """A card with defaults filled in, including those of each entry in ``own_selections``."""
    rules = schema("method")
    filled = with_defaults(card, rules)
    entry = rules["properties"]["own_selections"]["additionalProperties"]
    own = {name: with_defaults(given, entry) for name, given in filled["own_selections"].items()}
    return {**filled, "own_selections": own}
