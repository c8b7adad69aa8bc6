"""Fingerprints of code: a short hash of a function or script and of all it reaches inside the package.

Snakemake sees a script's modification time and never what the script imports. So every rule passes
`code_version(...)` as a param: editing a method reruns that method, editing a comment, a docstring or an
unrelated function of the same file reruns nothing. Everything is read from syntax trees; nothing is imported.

What reaches what: a top-level symbol (function, class, assignment) depends on the names it mentions, in its
own module or imported from the package (``from safety_regions.x import y`` at any depth). A name of a module
taken whole (``from safety_regions import x``) counts with all of that module. Imports by a string name are
invisible and must be named in the call. The wording of errors decides no number and is left out.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "safety_regions"
ROOT = Path(__file__).parent
WHOLE = "*"
WORDING = ("safety_regions.errors", "safety_regions.joblog")
Symbol = tuple[str, str]


@cache
def code_version(*entries: str | Path) -> str:
    """16 hex digits that change when the code of an entry, or code it reaches, changes.

    Args:
        entries: dotted modules ("safety_regions.methods.snip"), functions of modules
            ("safety_regions.scoring.run:score"), or paths of scripts.

    Raises:
        FileNotFoundError: an entry names no module of the package and no file.
    """
    reached: set[Symbol] = set()
    for entry in entries:
        module, _, symbol = str(entry).partition(":")
        _reach((module, symbol or WHOLE), reached)
    digest = hashlib.sha256()
    for module, symbol in sorted(reached):
        # Scripts are named by their file alone: the hash must not depend on where the project lies.
        digest.update(f"{module.rpartition('/')[2]}:{symbol}\n{_text(module, symbol)}\n".encode())
    return digest.hexdigest()[:16]


def _reach(start: Symbol, reached: set[Symbol]) -> None:
    waiting = [start]
    while waiting:
        symbol = waiting.pop()
        if symbol not in reached:
            reached.add(symbol)
            waiting.extend(_uses(*symbol))


@cache
def _path(module: str) -> Path | None:
    if module.endswith(".py"):
        return Path(module)
    if module in WORDING or (module != PACKAGE and not module.startswith(PACKAGE + ".")):
        return None
    base = ROOT.joinpath(*module.split(".")[1:])
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def _tree(module: str) -> ast.Module:
    path = _path(module)
    if path is None:
        raise FileNotFoundError(f"no module '{module}' in {PACKAGE}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        is_documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if is_documented and ast.get_docstring(node, clean=False) is not None:
            node.body = body[1:] or [ast.Pass()]
    return tree


@cache
def _definitions(module: str) -> dict[str, list[ast.stmt]]:
    """Top-level symbol -> the statements that define it; statements that define nothing stand under ""."""
    found: dict[str, list[ast.stmt]] = {}
    for node in _tree(module).body:
        for name in _defined(node) or [""]:
            found.setdefault(name, []).append(node)
    return found


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return []


def _statements(module: str, symbol: str) -> list[ast.stmt]:
    if symbol == WHOLE:
        return _tree(module).body
    # What defines nothing (a bare call, a condition) runs at import and belongs to every symbol.
    return _definitions(module).get(symbol, []) + _definitions(module).get("", [])


@cache
def _text(module: str, symbol: str) -> str:
    return "\n".join(ast.dump(node) for node in _statements(module, symbol))


@cache
def _uses(module: str, symbol: str) -> tuple[Symbol, ...]:
    return tuple(dict.fromkeys(_mentions(module, symbol)))


def _mentions(module: str, symbol: str) -> Iterator[Symbol]:
    definitions = _definitions(module)
    for statement in _statements(module, symbol):
        for node in ast.walk(statement):
            if (
                isinstance(node, ast.Name)
                and symbol != WHOLE
                and node.id in definitions
                and node.id != symbol
            ):
                yield module, node.id
            elif isinstance(node, ast.Import | ast.ImportFrom):
                yield from _imported(node, None if symbol == WHOLE else symbol)


def _imported(node: ast.Import | ast.ImportFrom, only: str | None) -> Iterator[Symbol]:
    """Package symbols an import brings; ``only`` keeps the alias of that name when the import defines it."""
    aliases = node.names
    if only is not None and any(_alias_name(alias) == only for alias in aliases):
        aliases = [alias for alias in aliases if _alias_name(alias) == only]
    for alias in aliases:
        if isinstance(node, ast.Import):
            if _path(alias.name):
                yield alias.name, WHOLE
        elif _path(f"{node.module}.{alias.name}"):
            yield f"{node.module}.{alias.name}", WHOLE
        elif node.module and _path(node.module):
            yield node.module, alias.name


def _alias_name(alias: ast.alias) -> str:
    return (alias.asname or alias.name).partition(".")[0]
