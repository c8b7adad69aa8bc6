"""Read cards of datasets and backbones from the catalog or the config, and check them against a schema.

A card that extends another (``extends: organism-llama``) lists only what differs. `Shelf.read` returns the complete
card, without ``extends``. A problem is one sentence; checks return all problems instead of stopping at the first.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from difflib import get_close_matches
from functools import cache
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from safety_regions.errors import StudyError, explain, unknown
from safety_regions.families import families
from safety_regions.study.yaml_keys import parse_yaml
from safety_regions.units.granularity import GRANULARITIES

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

PACKAGE = Path(__file__).parents[1]
CATALOG = PACKAGE / "catalog"
SCHEMAS = Path(__file__).parent / "schemas"
EXTENDS = "extends"
QUOTES = (
    "quotes around it; YAML reads no, yes, on, off, numbers and dates without quotes as values, not as text"
)


@cache
def schema(kind: str) -> dict:
    """The JSON schema for a kind of document: config, dataset, checkpoint, organism or method (its CARD).

    The allowed families, and the keys that an organism of each family needs, come from the files of the families; the
    allowed granularities come from `GRANULARITIES`.
    """
    rules = yaml.safe_load((SCHEMAS / f"{kind}.schema.yaml").read_text(encoding="utf-8"))
    if kind == "checkpoint":
        rules["properties"]["family"]["enum"] = sorted(families())
    if kind == "method":
        rules["properties"]["granularity"]["enum"] = list(GRANULARITIES)
    if kind == "organism":
        extras = {name: set(f.organism.values()) for name, f in families().items() if f.organism is not None}
        rules["properties"]["family"]["enum"] = sorted(extras)
        rules["allOf"] = _architectures(rules["properties"]["architecture"], extras)
    return rules


def _architectures(rules: dict, extras: dict[str, set[str]]) -> list[dict]:
    """One rule per family: keys of ``architecture`` that only some families have are required or forbidden."""
    special = set().union(*extras.values()) - {*rules["required"]}
    return [
        {
            "if": {"properties": {"family": {"const": name}}, "required": ["family"]},
            "then": {
                "properties": {
                    "architecture": {
                        "required": sorted(special & own),
                        "propertyNames": {"enum": [k for k in rules["properties"] if k not in special - own]},
                    }
                }
            },
        }
        for name, own in extras.items()
    ]


def with_defaults(document: dict, rules: dict) -> dict:
    """A copy of ``document`` in which missing keys are set to their defaults."""
    filled = dict(document)
    for key, rule in rules.get("properties", {}).items():
        if key not in filled and "default" in rule:
            filled[key] = rule["default"]
        if isinstance(filled.get(key), dict):
            filled[key] = with_defaults(filled[key], rule)
    return filled


def with_types(document: object, rules: dict) -> object:
    """A copy of ``document`` in which a text is replaced by the number, boolean or null that it spells.

    Only where the schema allows no text. Snakemake hands over ``--config 'samples={identify: 4}'`` as text, and YAML
    reads 1e-4 as text.
    """
    if isinstance(document, dict):
        properties, others = rules.get("properties", {}), rules.get("additionalProperties")
        others = others if isinstance(others, dict) else {}
        return {key: with_types(value, properties.get(key, others)) for key, value in document.items()}
    if isinstance(document, list):
        return [with_types(item, rules.get("items", {})) for item in document]
    return _typed(document, rules) if isinstance(document, str) else document


def _typed(text: str, rules: dict) -> object:
    if "type" not in rules or "string" in rules["type"]:
        return text
    for read in (yaml.safe_load, float):
        with suppress(yaml.YAMLError, ValueError):
            value = read(text)
            scalar = (
                value is None
                or isinstance(value, (bool, int))
                or (isinstance(value, float) and isfinite(value))
            )
            if scalar and _validator({"type": rules["type"]}).is_valid(value):
                return value
    return text


def check(document: object, rules: dict, where: str) -> list[str]:
    """Every violation of the schema in ``document``, one sentence each, sorted by location."""
    errors = sorted(_validator(rules).iter_errors(document), key=lambda e: [str(p) for p in e.path])
    found = [sentence for error in errors for sentence in _sentences(error, where)]
    return [*_keys_no_text(document, where), *found]


def _keys_no_text(document: object, where: str) -> Iterator[str]:
    """A sentence for each key of a mapping that is no text, such as the key ``no``, which YAML reads as false."""
    inner = document.items() if isinstance(document, dict) else ()
    inner = enumerate(document) if isinstance(document, list) else inner
    for key, value in inner:
        if isinstance(document, dict) and not isinstance(key, str):
            yield explain(where, f"the key {_short(key)}", "a key that is text", QUOTES)
        yield from _keys_no_text(value, f"{where}: {key}")


def _validator(rules: dict) -> "Draft202012Validator":
    from jsonschema import Draft202012Validator  # not at the top: jobs import this module and check nothing

    return Draft202012Validator(rules)


def _sentences(error: "ValidationError", where: str) -> list[str]:
    place = ": ".join([where, *(str(part) for part in error.path)])
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        return [unknown(place, "key", key, known) for key in error.instance if key not in known]
    if error.validator == "enum":
        near = get_close_matches(str(error.instance), [str(v) for v in error.validator_value], n=1)
        hint = f"'{near[0]}'" if near else ""
        return [explain(place, _short(error.instance), "one of " + json.dumps(error.validator_value), hint)]
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return [explain(place, f"no '{key}'", f"the key '{key}'") for key in missing]
    if error.validator == "uniqueItems":
        twice = sorted({str(item) for item in error.instance if error.instance.count(item) > 1})
        return [explain(place, f"{', '.join(twice)} more than once", "each entry once")]
    if error.validator == "pattern" and "title" in error.schema:
        return [explain(place, _short(error.instance), f"a name of {error.schema['title']}")]
    if error.validator in ("oneOf", "anyOf"):
        keys = [" and ".join(option.get("required", [])) for option in error.validator_value]
        return [explain(place, "none or several", f"exactly one of: {'; '.join(filter(None, keys))}")]
    wanted = {
        "type": lambda v: "type " + (v if isinstance(v, str) else " or ".join(v)),
        "minimum": lambda v: f"at least {v}",
        "maximum": lambda v: f"at most {v}",
        "exclusiveMinimum": lambda v: f"more than {v}",
        "exclusiveMaximum": lambda v: f"less than {v}",
        "minItems": lambda v: f"at least {v} entry",
        "minProperties": lambda v: f"at least {v} entry",
        "pattern": lambda v: f"a name of the form {v}",
        "const": lambda v: f"'{v}'",
    }.get(error.validator, lambda v: f"{error.validator} {v}")
    # A value of this type, where text is allowed, may be a name that lacks quotes.
    unquoted = error.validator == "type" and "string" in error.validator_value
    unquoted = unquoted and isinstance(error.instance, (bool, int, float, date))
    return [explain(place, _short(error.instance), wanted(error.validator_value), QUOTES if unquoted else "")]


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


class Shelf:
    """Cards of one kind by name: inline ones first, then the catalog's files."""

    def __init__(self, folder: str, inline: dict[str, dict]) -> None:
        self._inline = inline
        self._form = schema("config")["properties"]["cards"]["properties"][folder]["propertyNames"]
        files = [p for p in sorted((CATALOG / folder).glob("*")) if p.suffix.lower() in (".yaml", ".yml")]
        right = [p for p in files if p.suffix == ".yaml" and re.search(self._form["pattern"], p.stem)]
        self._files = {path.stem: path for path in right}
        self._misnamed = [path for path in files if path not in right]

    def __contains__(self, name: str) -> bool:
        return name in self._inline or name in self._files

    @property
    def names(self) -> list[str]:
        return sorted({*self._inline, *self._files})

    def misnamed(self, name: str) -> str:
        """What is wrong with the name of the file that seems to be meant by ``name``; empty if there is none."""
        for path in self._misnamed:
            stem, meant = _plain(path.stem), (_plain(name), _plain(Path(name).stem))
            if path.stem == name or (name not in self and stem in meant):
                found = f"the file {path.relative_to(PACKAGE.parent)}"
                expected = f"a file name of {self._form['title']}, with the ending .yaml"
                return explain(name, found, expected, f"the file name {stem}.yaml, and the name {stem}")
        return ""

    def where(self, name: str) -> str:
        """The location of the card, for messages."""
        return (
            f"cards: {name}" if name in self._inline else str(self._files[name].relative_to(PACKAGE.parent))
        )

    def read(self, name: str) -> object:
        """The card, merged with the card that it extends, if any; see `merged`.

        Raises:
            StudyError: a file is not valid YAML, or a card extends itself, an unknown card or something that is not a
                card.
        """
        return self._resolve(name, ())

    def _resolve(self, name: str, before: tuple[str, ...]) -> object:
        card = self._written(name)
        if not isinstance(card, dict) or EXTENDS not in card:
            return card
        base, place, chain = card[EXTENDS], f"{self.where(name)}: {EXTENDS}", (*before, name)
        if not isinstance(base, str):
            raise StudyError(explain(place, _short(base), "the name of a card"))
        if self.misnamed(base):
            raise StudyError(f"{place}: {self.misnamed(base)}")
        if base not in self:
            raise StudyError(unknown(place, "card", base, self.names))
        if base in chain:
            raise StudyError(
                explain(place, " -> ".join((*chain, base)), "cards that do not extend each other in a circle")
            )
        whole = self._resolve(base, chain)
        if not isinstance(whole, dict):
            raise StudyError(explain(self.where(base), _short(whole), "a YAML mapping"))
        return merged(whole, {key: value for key, value in card.items() if key != EXTENDS})

    def _written(self, name: str) -> object:
        if name in self._inline:
            return self._inline[name]
        try:
            text = self._files[name].read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise StudyError(explain(self.where(name), "bytes that are not UTF-8")) from None
        return parse_yaml(text, self.where(name))


def _plain(name: str) -> str:
    """A name in lower case, with one hyphen for all other characters."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def merged(base: dict, own: dict) -> dict:
    """``base`` updated with ``own``: mappings are merged key by key, other values are replaced.

    A key of ``base`` that is null in ``own`` is removed. Keys keep the order of ``base``; a new key comes before the
    next key that both have. The order matters because Snakemake compares the parameters of a rule as text.
    """
    whole = {}
    for key in _order(list(base), list(own)):
        if key not in own:
            whole[key] = base[key]
        elif isinstance(own[key], dict) and isinstance(base.get(key), dict):
            whole[key] = merged(base[key], own[key])
        elif own[key] is not None or key not in base:
            whole[key] = own[key]
    return whole


def _order(base: list[str], own: list[str]) -> list[str]:
    """The keys of ``base``, with each new key of ``own`` before the next key that both have, or else at the end."""
    order = list(base)
    for i, key in enumerate(own):
        if key not in base:
            following = [other for other in own[i:] if other in base]
            order.insert(order.index(following[0]) if following else len(order), key)
    return order
