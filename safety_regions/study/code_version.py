"""Code versions: a short hash of a script and all package code that it reaches.

Snakemake checks a script's modification time, but not the modules that the script imports. So every rule passes
`code_version(...)` as a param: editing a method reruns that method; editing a comment, a docstring, an error message
or an unrelated function in the same file reruns nothing. Code is read from syntax trees; nothing is imported.

The hash covers definitions (top-level functions, classes and assignments), numbered in the order in which they are
reached. References are replaced by these numbers and imports are omitted. The hash therefore depends on the content
of a definition, not on its name, module or file: moving or renaming code reruns nothing.

A string that names a template of the module (``templates/NAME.html.j2``) is a reference to that template. Templates
that it extends, imports or includes are followed in turn. The names and comments of templates are not hashed.

Imports by a string name cannot be seen and must be listed in the call. Text in a ``raise`` or a ``print``, and the
title and descriptions in a method's CARD, cannot change a number and are left out.
"""

import ast
import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = "safety_regions"
ROOT = Path(__file__).parents[1]
WHOLE = "*"
EXTERNAL = ""
WORDING = ("safety_regions.errors", "safety_regions.joblog")
WORDS_OF_CARD = ("title", "description")
REFERENCE = "\0"
TEMPLATE = r"\w+\.(?:html|svg|css|js)\.j2"
IMPORTS = (ast.Import, ast.ImportFrom)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IGNORED = ("ctx", "kind", "type_comment")


class Symbol(NamedTuple):
    """A definition: module (dotted name, or path of a script or template) and name; `WHOLE` means the whole module.

    For a name from another package, the module is `EXTERNAL`.
    """

    module: str
    name: str


class Text(NamedTuple):
    """The content of a definition with each reference written as `REFERENCE`, and the referenced symbols in order."""

    words: bytes
    references: tuple[Symbol, ...]


@cache
def code_version(*entries: str | Path) -> str:
    """A hash of 16 hex digits that changes when the code of an entry, or code that it reaches, changes.

    Args:
        entries: dotted modules ("safety_regions.methods.snip") or paths of scripts.

    Raises:
        FileNotFoundError: an entry is neither a module of the package nor a file, or a template is missing.
    """
    digest = hashlib.sha256()
    numbers: dict[Symbol, int] = {}
    for symbol in _walk(entries):
        numbers[symbol] = len(numbers)
    for symbol in numbers:
        words, references = _text(symbol)
        digest.update(words + b"\n" + " ".join(str(numbers[r]) for r in references).encode() + b"\n")
    return digest.hexdigest()[:16]


def reached(*entries: str | Path) -> set[Symbol]:
    """Every definition that an entry reaches; see `code_version`."""
    return set(_walk(entries))


def _walk(entries: tuple[str | Path, ...]) -> list[Symbol]:
    """The symbols that the entries reach, each once, breadth first in the order of references."""
    order = list(dict.fromkeys(Symbol(str(entry), WHOLE) for entry in entries))
    seen = set(order)
    for symbol in order:  # grows while it is read
        for other in _text(symbol).references:
            if other not in seen:
                seen.add(other)
                order.append(other)
    return order


@cache
def _path(module: str) -> Path | None:
    """The file of a script or of a module of the package; None for anything else."""
    if module.endswith(".py"):
        return Path(module)
    if module != PACKAGE and not module.startswith(PACKAGE + "."):
        return None
    base = ROOT.joinpath(*module.split(".")[1:])
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def _tree(module: str) -> ast.Module:
    """The syntax tree of a module, without its docstring."""
    path = _path(module)
    if path is None:
        raise FileNotFoundError(f"no module '{module}' in {PACKAGE}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = tree.body[ast.get_docstring(tree, clean=False) is not None :]
    return tree


@cache
def _definitions(module: str) -> dict[str, list[ast.stmt]]:
    """Top-level name -> the statements that define it; statements that define nothing are listed under ""."""
    found: dict[str, list[ast.stmt]] = {}
    for node in _tree(module).body:
        for name in _defined(node) or [""]:
            found.setdefault(name, []).append(node)
    return found


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, DEFINITIONS):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return []


@cache
def _imports(module: str) -> dict[str, Symbol | None]:
    """Name -> the symbol that a module imports under it at the top level, not inside definitions."""
    statements = (node for node in _tree(module).body if not isinstance(node, DEFINITIONS))
    return _imported(statements)


@cache
def _import_lines(module: str) -> list[int]:
    """The lines of a module that may hold an import, ascending; a search in the text is faster than one in the tree."""
    lines = _path(module).read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, start=1) if "import" in line]


def _has_import(module: str, statement: ast.stmt) -> bool:
    lines = _import_lines(module)
    return bisect_left(lines, statement.lineno) < bisect_right(lines, statement.end_lineno)


def _imported(statements: Iterable[ast.AST]) -> dict[str, Symbol | None]:
    """Name -> the symbol that an import binds to it, anywhere in the statements."""
    found = {}
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, IMPORTS):
                found |= {
                    (alias.asname or alias.name).partition(".")[0]: _target(node, alias)
                    for alias in node.names
                }
    return found


def _target(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> Symbol | None:
    """The symbol that an import provides; None if it cannot change a number."""
    if isinstance(node, ast.Import):
        return Symbol(alias.name, WHOLE) if _path(alias.name) else Symbol(EXTERNAL, alias.name)
    source = node.module or ""
    if source in WORDING or f"{source}.{alias.name}" in WORDING:
        return None
    if _path(f"{source}.{alias.name}"):
        return Symbol(f"{source}.{alias.name}", WHOLE)
    if _path(source):
        return _resolve(source, alias.name) or Symbol(source, alias.name)
    return Symbol(EXTERNAL, f"{source}:{alias.name}")


def _resolve(module: str, name: str) -> Symbol | None:
    """The definition of a name in a module, followed through imports; None if the module does not define the name."""
    if name in _definitions(module):
        return Symbol(module, name)
    return _imports(module).get(name)


@cache
def _text(symbol: Symbol) -> Text:
    if symbol.module == EXTERNAL:
        return Text(symbol.name.encode(), ())
    if re.fullmatch(TEMPLATE, Path(symbol.module).name):
        return _template_text(Path(symbol.module))
    writer = _Writer(symbol)
    if symbol.name != WHOLE:
        definitions = _definitions(symbol.module)
        # A statement that defines nothing (a bare call, a condition) runs at import, so it is part of every definition.
        writer.write([*definitions.get(symbol.name, []), *definitions.get("", [])])
    else:
        for node in _tree(symbol.module).body:
            names = _defined(node)
            for name in names:
                writer.refer(Symbol(symbol.module, name))
            if not names:
                writer.write([node])
    return Text("".join(writer.words).encode(), tuple(writer.references))


def _template_text(path: Path) -> Text:
    """The content of a template without comments; a quoted name of another template is a reference."""
    text = re.sub(r"{#.*?#}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    words_and_names = re.split(f'"({TEMPLATE})"', text)
    others = [Symbol(str(path.with_name(name)), WHOLE) for name in words_and_names[1::2]]
    return Text(REFERENCE.join(words_and_names[::2]).encode(), tuple(others))


class _Writer:
    """Converts statements to words and references."""

    def __init__(self, symbol: Symbol) -> None:
        self._symbol = symbol
        self._names: Callable[[str], Symbol | None] = lambda name: None
        self.words: list[str] = []
        self.references: list[Symbol] = []

    def refer(self, symbol: Symbol) -> None:
        self.words.append(REFERENCE)
        self.references.append(symbol)

    def write(self, statements: list[ast.stmt]) -> None:
        """Write top-level statements without the names that they define."""
        for statement in statements:
            own = _imported([statement]) if _has_import(self._symbol.module, statement) else {}
            self._names = lambda name, own=own: (
                own[name] if name in own else _resolve(self._symbol.module, name)
            )
            self._node(statement, skip=("name",) if isinstance(statement, DEFINITIONS) else ())

    def _node(self, node: ast.AST, skip: tuple[str, ...] = ()) -> None:
        if isinstance(node, ast.Raise):
            self.words.append("Raise ")
        elif isinstance(node, IMPORTS) or _is_print(node):
            pass
        elif (symbol := self._symbol_of(node)) is not None:
            self.refer(symbol)
        else:
            self.words.append(f"{type(node).__name__}(")
            node = self._without_words(node)
            for field in node._fields:
                if field not in skip and field not in IGNORED:
                    value = getattr(node, field, None)
                    self._value(_undocumented(node) if field == "body" else value)
            self.words.append(")")

    def _value(self, value: object) -> None:
        if isinstance(value, ast.AST):
            self._node(value)
        elif isinstance(value, list):
            self.words.append("[")
            for item in value:
                self._value(item)
            self.words.append("]")
        else:
            self.words.append(f"{value!r},")

    def _symbol_of(self, node: ast.AST) -> Symbol | None:
        """The symbol that a name, a module's attribute or the name of a template refers to."""
        if isinstance(node, ast.Constant):
            if not isinstance(node.value, str) or not re.fullmatch(TEMPLATE, node.value):
                return None
            return Symbol(str(_path(self._symbol.module).parent / "templates" / node.value), WHOLE)
        if isinstance(node, ast.Name):
            return self._names(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = self._names(node.value.id)
            if module is not None and module.name == WHOLE:
                return _resolve(module.module, node.attr) or module
        return None

    def _without_words(self, node: ast.AST) -> ast.AST:
        """A dict in a method's CARD without title and descriptions; any other node unchanged."""
        if self._symbol.name != "CARD" or not isinstance(node, ast.Dict):
            return node
        keys = [getattr(key, "value", None) for key in node.keys]
        kept = [i for i, key in enumerate(keys) if key not in WORDS_OF_CARD]
        return ast.Dict([node.keys[i] for i in kept], [node.values[i] for i in kept])


def _undocumented(node: ast.AST) -> list[ast.stmt] | ast.expr:
    """The body of a statement, a lambda or an expression, without the docstring of a definition."""
    if not isinstance(node, DEFINITIONS):
        return node.body
    documented = ast.get_docstring(node, clean=False) is not None
    return node.body[documented:] or [ast.Pass()]


def _is_print(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "print"
    )
