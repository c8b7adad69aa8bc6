"""Read cards of datasets and backbones from the catalog or the config, and check them against a schema.

A card that extends another (``extends: organism-llama``) lists only what differs. `Shelf.read` returns the complete
card, without ``extends``. A problem is one sentence; checks return all problems instead of stopping at the first.
"""

import json
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator, ValidationError

from safety_regions.errors import StudyError, explain, unknown
from safety_regions.families import families
from safety_regions.units.granularity import GRANULARITIES

PACKAGE = Path(__file__).parents[1]
CATALOG = PACKAGE / "catalog"
SCHEMAS = Path(__file__).parent / "schemas"
EXTENDS = "extends"


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


def check(document: object, rules: dict, where: str) -> list[str]:
    """Every violation of the schema in ``document``, one sentence each, sorted by location."""
    errors = sorted(Draft202012Validator(rules).iter_errors(document), key=lambda e: [str(p) for p in e.path])
    return [sentence for error in errors for sentence in _sentences(error, where)]


def _sentences(error: ValidationError, where: str) -> list[str]:
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
    return [explain(place, _short(error.instance), wanted(error.validator_value))]


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


class Shelf:
    """Cards of one kind by name: inline ones first, then the catalog's files."""

    def __init__(self, folder: str, inline: dict[str, dict]) -> None:
        self._inline = inline
        self._files = {path.stem: path for path in sorted((CATALOG / folder).glob("*.yaml"))}

    def __contains__(self, name: str) -> bool:
        return name in self._inline or name in self._files

    @property
    def names(self) -> list[str]:
        return sorted({*self._inline, *self._files})

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
            return yaml.safe_load(self._files[name].read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
            found = f"broken YAML in line {line}"
            raise StudyError(explain(self.where(name), found, "a YAML mapping")) from None


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
