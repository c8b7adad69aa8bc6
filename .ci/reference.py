"""A hook of mkdocs: the reference pages, made from the schemas, the contracts and the CARDs when the site is built.

``reference/config.md`` has every key of a config, ``reference/cards.md`` those of cards, ``reference/methods.md`` the
options of methods and operations, ``reference/tables.md`` the columns of every table. No such file is stored.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa

from safety_regions.formats import contracts
from safety_regions.study.catalog import schema
from safety_regions.study.method_shelf import method_cards
from safety_regions.study.operation_shelf import operation_cards

CARDS = ("dataset", "checkpoint", "organism", "method", "operation")
LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


class Key(NamedTuple):
    """A key of a YAML file: its path, what it may hold, its default (or that it is required), its meaning."""

    path: str
    holds: str
    default: str
    meaning: str


def keys(rules: Mapping, root: Mapping | None = None, place: str = "") -> Iterator[Key]:
    """Every key that a schema describes, with those inside it; a name that the user chooses is written NAME."""
    root = root or rules
    for name, rule in rules.get("properties", {}).items():
        rule = _resolved(rule, root) if isinstance(rule, Mapping) else {}
        path = f"{place}{name}"
        default = "required" if name in rules.get("required", ()) else _default(rule)
        yield Key(path, holds(rule, root), default, " ".join(rule.get("description", "").split()))
        yield from keys(rule, root, f"{path}: ")
        for inner in ("additionalProperties", "items"):
            if isinstance(rule.get(inner), Mapping):
                step = "NAME: " if inner == "additionalProperties" else ""
                yield from keys(_resolved(rule[inner], root), root, f"{path}: {step}")


def _resolved(rule: Mapping, root: Mapping) -> dict:
    """A rule with what it refers to."""
    if "$ref" not in rule:
        return dict(rule)
    *_, name = rule["$ref"].split("/")
    return {**root["$defs"][name], **{key: value for key, value in rule.items() if key != "$ref"}}


def _default(rule: Mapping) -> str:
    return _yaml(rule["default"]) if "default" in rule else ""


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def holds(rule: Mapping, root: Mapping) -> str:
    """What a key may hold, in words."""
    if "const" in rule:
        return _yaml(rule["const"])
    if "enum" in rule:
        return ", ".join(map(_yaml, rule["enum"]))
    kinds = rule.get("type", "any")
    words = [_kind(kind, rule, root) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    limits = [f"{word} {rule[key]:g}" for key, word in LIMITS.items() if key in rule]
    return ", ".join([" or ".join(words), *limits])


def _kind(kind: str, rule: Mapping, root: Mapping) -> str:
    if kind == "array" and isinstance(rule.get("items"), Mapping):
        return f"list of {holds(_resolved(rule['items'], root), root)}"
    if kind == "object" and isinstance(rule.get("additionalProperties"), Mapping):
        return f"NAME → {holds(_resolved(rule['additionalProperties'], root), root)}"
    return {"object": "mapping", "array": "list", "string": "text", "boolean": "true or false"}.get(
        kind, kind
    )


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [list(header), None, *map(list, rows)]
    width = len(lines[0])
    said = ["---"] * width
    return "".join(f"| {' | '.join(_cell(text) for text in line or said)} |\n" for line in lines)


def _cell(text: str) -> str:
    text = text.replace("|", "\\|")
    return text if text.startswith("`") else text.replace("<", "&lt;")


def config_page() -> str:
    """Every key of a config."""
    about = (
        "From the schema that checks a config before any job runs. NAME is a name of your choice. A colon leads to a "
        "key inside a key. `config/README.md` in the repository says what the values mean for a study."
    )
    return f"# Keys of a config\n\n{about}\n\n" + _keys_table(schema("config"))


def cards_page() -> str:
    """Every key of every kind of card."""
    parts = ["# Keys of cards\n\nFrom the schemas that check cards. NAME is a name of your choice.\n"]
    for kind in CARDS:
        rules = schema(kind)
        about = " ".join(rules.get("description", "").split())
        parts.append(f"\n## {rules['title']}\n\n{about}\n\n{_keys_table(rules)}")
    return "".join(parts)


def _keys_table(rules: Mapping) -> str:
    rows = ((f"`{key.path}`", key.holds, key.default, key.meaning) for key in keys(rules))
    return table(("key", "holds", "default", "meaning"), rows)


def methods_page() -> str:
    """The options, presets and selections of methods, and the doses of operations, from their CARDs."""
    about = "From the CARD of each. Formulas and sources: [Methods](../methods.md)."
    parts = [f"# Options of methods and operations\n\n{about}\n"]
    for name, card in method_cards().items():
        parts.append(f"\n## {name}\n\n{card['title']}. Units: {card['granularity']}. Selections: ")
        parts.append(", ".join(f"`{one}`" for one in card["selections"]) + ".\n\n")
        options = keys({"properties": card["options"]})
        if card["options"]:
            rows = ((f"`{key.path}`", key.holds, key.default, key.meaning) for key in options)
            parts.append(table(("option", "holds", "default", "meaning"), rows))
        if card["presets"]:
            rows = ((f"`{preset}`", f"`{_yaml(given)}`") for preset, given in card["presets"].items())
            parts.append("\n" + table(("preset", "stands for"), rows))
    rows = ((f"`{n}`", card["title"], _yaml(card["doses"])) for n, card in operation_cards().items())
    return "".join([*parts, "\n## Operations\n\n", table(("operation", "what it is", "default doses"), rows)])


def column_type(kind: pa.DataType) -> str:
    """The type of a column in words: category for texts that repeat."""
    if pa.types.is_dictionary(kind):
        return "category"
    return f"list of {column_type(kind.value_type)}" if pa.types.is_list(kind) else str(kind)


def tables_page() -> str:
    """The columns of every parquet table."""
    found = {name: one for name, one in vars(contracts).items() if isinstance(one, contracts.Contract)}
    about = (
        "From the contracts that every parquet table is checked against when it is written and read. "
        "[Result files](../results.md) says which file has which contract."
    )
    parts = [f"# Columns of tables\n\n{about}\n"]
    for name, contract in found.items():
        about = f"Schema `{contract.name}`, version {contract.version}. One row per {contract.row}."
        rows = (
            (f"`{c.name}`", column_type(c.type), c.meaning + ("; optional" if c.optional else ""))
            for c in contract.columns
        )
        parts.append(f"\n## {name}\n\n{about}\n\n{table(('column', 'type', 'meaning'), rows)}")
    return "".join(parts)


PAGES = {
    "reference/config.md": config_page,
    "reference/cards.md": cards_page,
    "reference/methods.md": methods_page,
    "reference/tables.md": tables_page,
}


def on_files(files, config):
    """Add the pages to the site."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files
