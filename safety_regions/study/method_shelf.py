"""The shelf of methods, read from syntax trees: listing it imports no method and no torch.

A method is a file ``methods/{name}.py``, or a folder ``methods/{name}/`` with a file ``method.py``.
"""

import ast
from functools import cache
from pathlib import Path

SHELF = Path(__file__).parents[1] / "methods"
ROOM = "safety_regions.methods"


@cache
def method_cards() -> dict[str, dict]:
    """Every method's CARD by name."""
    return {name: _card(path) for name, path in _files().items()}


def method_module(name: str) -> str:
    """The dotted module that holds a method's CARD, ``gather`` and ``scores``."""
    return f"{ROOM}.{name}.method" if _files()[name].stem == "method" else f"{ROOM}.{name}"


@cache
def _files() -> dict[str, Path]:
    folders = {path.parent.name: path for path in SHELF.glob("*/method.py")}
    return dict(sorted({**folders, **{path.stem: path for path in SHELF.glob("[!_]*.py")}}.items()))


def _card(path: Path) -> dict:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", None) == "CARD" for t in node.targets):
            return ast.literal_eval(node.value)
    raise ValueError(f"{path}: no CARD = {{...}} at the top level")
