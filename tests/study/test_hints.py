"""Users can follow the hints of errors: keys in backticks are keys of the config or of a card."""

import ast
import re

import pytest
import yaml

from safety_regions.study.catalog import schema
from safety_regions.study.method_shelf import method_cards
from tests.paths import ROOT

KINDS = ("config", "dataset", "checkpoint", "organism")


def texts(path) -> list[str]:
    """Return every string of a file, with "row" for each value that an f-string fills in."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(p.value if isinstance(p, ast.Constant) else "row" for p in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def snippets() -> set[str]:
    """Return the YAML in backticks of the form ``key: value`` in all strings of the package that have one line."""
    files = (ROOT / "safety_regions").rglob("*.py")
    found = {
        match
        for path in files
        for text in texts(path)
        if "\n" not in text
        for match in re.findall(r"`([a-z_]+: [^`]+)`", text)
    }
    return {text for text in found if isinstance(parsed(text), dict)}


def parsed(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        # A hint such as "preference: steps" is a path into the config.
        *outer, last = text.split(": ")
        value: object = last
        for key in reversed(outer):
            value = {key: value}
        return value


def known(value: dict, rules: dict) -> bool:
    """Whether a schema has these keys, also where it refers to a part of its document."""
    part = rules.get("$ref", "").removeprefix("#/$defs/")
    properties = (parts().get(part, rules)).get("properties", {})
    return all(
        key in properties and (not isinstance(inner, dict) or known(inner, properties[key]))
        for key, inner in value.items()
    )


def parts() -> dict[str, dict]:
    """The named parts of all documents' schemas."""
    return {name: rules for kind in KINDS for name, rules in schema(kind).get("$defs", {}).items()}


def sections() -> list[dict]:
    """Return the schemas of all documents, and of the sections of each."""
    whole = [schema(kind) for kind in KINDS]
    return whole + [rule for rules in whole for rule in rules["properties"].values()]


def test_there_are_hints():
    assert len(snippets()) >= 5


@pytest.mark.parametrize("text", sorted(snippets()))
def test_a_hint_names_keys_that_exist(text):
    value = parsed(text)
    options = {option for card in method_cards().values() for option in card["options"]}
    of_documents = any(known(value, rules) for rules in sections() if "properties" in rules)
    assert of_documents or set(value) <= options, text
