"""The section `behaviour` of a config: which regions are changed, how, and beside which controls."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import yaml

from safety_regions.errors import explain, unknown
from safety_regions.study.catalog import SCHEMAS, schema, with_defaults
from safety_regions.study.methods import Method
from safety_regions.study.operation_shelf import ALIGNED, FINE_TUNED, dose_problems, operation_cards
from safety_regions.units.behaviour import CHANGE

GIVEN, PLANTED = "given", "planted"
"""In the place of a method: regions from files. Among them is an organism's planted region."""


def behaviour_problems(
    section: Mapping, backbones: Mapping[str, dict], methods: Mapping[str, Method], refinements: Iterable[str],
    judges: Mapping[str, dict], evaluate: int, where: str,
) -> list[str]:  # fmt: skip
    """What is wrong with the section.

    Args:
        section: with defaults filled in; empty if the config has none.
        backbones: name -> card of the study's backbones.
        methods, refinements: label -> method of the study, and its refinements.
        judges: name -> card of the checkpoints that judge answers.
        evaluate: held-out prompts per dataset.
        where: how errors name the section.
    """
    if not section:
        return []
    found, known = [], {"backbones": backbones, "methods": methods, "refinements": refinements}
    for key, names in known.items():
        kind = key.removesuffix("s")
        found += [unknown(f"{where}: {key}", kind, n, names) for n in section[key] or () if n not in names]
    found += _subspace_problems(section, methods, where)
    found += _operation_problems(section["operations"], ALIGNED, f"{where}: operations")
    found += _operation_problems(section["export"], ALIGNED, f"{where}: export")
    for name, plan in _plans(section).items():
        place = f"{where}: constraint: {name}"
        found += _operation_problems(plan["restore"], FINE_TUNED, f"{place}: restore")
        if plan["restore"] and plan["start"] == "base":
            expected = "one that starts from the aligned model, whose weights are put back"
            found.append(explain(f"{place}: restore", "a plan that starts from the base", expected))
        labels = [label for label in plan["methods"] or () if label not in methods]
        found += [unknown(f"{place}: methods", "method", label, methods) for label in labels]
        missing = [key for key in ("attack", "learning_rates") if key not in plan]
        found += [explain(place, f"no '{key}'", "one, or a `preset` that has it") for key in missing]
    if not (section["operations"] or section["constraint"] or section["export"]):
        found.append(explain(where, "neither operations nor plans of constraint nor exports", "one of them"))
    for name in (name for name, card in judges.items() if "judge" not in card):
        expected = "one whose card has a section `judge`"
        found.append(explain(f"{where}: judges", f"'{name}', which is no judge", expected))
    if section["judges"] and not section["operations"]:
        found.append(explain(f"{where}: judges", "no `operations`, whose answers they judge", "one"))
    if section["tasks"] and not section["operations"]:
        found.append(explain(f"{where}: tasks", "no `operations`, whose models they measure", "one"))
    if PLANTED in section["given"]:
        found.append(
            explain(f"{where}: given", f"'{PLANTED}'", "another name: planted regions have this one")
        )
    without = [n for n in section["backbones"] or backbones if n in backbones and not has_base(backbones[n])]
    if compares_with_base(section) and without:
        needing = (
            "plans that start from the base, the operations "
            + ", ".join(_needing_base())
            + " and the control change"
        )
        hint = "`backbones:` in this section, or other operations and controls"
        expected = f"an organism, or a card with a base, for {needing}"
        found.append(explain(where, f"'{without[0]}', which has no base", expected, hint))
    if GIVEN in methods:
        hint = "another label; this one stands for regions from files"
        found.append(explain(f"{where}: methods", f"a method labelled '{GIVEN}'", hint))
    names = section["backbones"] or backbones
    files = [_file_of(path, name) for path in section["given"].values() for name in names]
    missing = [path for path in dict.fromkeys(files) if not Path(path).is_file()]
    found += [explain(f"{where}: given", f"no file {path}", "a region file") for path in missing]
    if not evaluate:
        found.append(
            explain(where, "`samples: evaluate` of 0", "held-out prompts, on which effects are measured")
        )
    return found


def _subspace_problems(section: Mapping, methods: Mapping[str, Method], where: str) -> list[str]:
    """What is asked of methods whose regions are subspaces, and is not defined for them."""
    cards, found = operation_cards(), []
    linear = [name for name, card in cards.items() if card["linear"]]
    for label in (label for label, method in methods.items() if method.has_subspaces):
        ranks = f"the regions of '{label}', which are subspaces"
        for key in ("operations", "export") if label in (section["methods"] or methods) else ():
            wrong = [name for name in section[key] if name in cards and name not in linear]
            hint = "other `methods:` in this section"
            found += [explain(f"{where}: {key}: {name}", ranks, ", ".join(linear), hint) for name in wrong]
        for name, plan in _plans(section).items():
            if label in (plan["methods"] or ()):
                found.append(explain(f"{where}: constraint: {name}: methods", ranks, "regions of units"))
    return found


def _operation_problems(chosen: Mapping[str, list | None], model: str, where: str) -> list[str]:
    """What is wrong with operations on a model, one of `ALIGNED` and `FINE_TUNED`."""
    cards = operation_cards()
    usable, found = [name for name, card in cards.items() if model in card["acts"]], []
    for name, doses in chosen.items():
        if name not in usable:
            found.append(unknown(where, "operation", name, usable))
        else:
            found += [explain(f"{where}: {name}", *problem) for problem in dose_problems(name, doses or [])]
    return found


def given_regions(section: Mapping, backbone: str, planted: bool) -> dict[str, str | None]:
    """Name -> region file that is not the study's own, None for the organism's planted region.

    Args:
        planted: whether the backbone is an organism with a planted region.
    """
    files = {name: _file_of(path, backbone) for name, path in sorted(section["given"].items())}
    return ({PLANTED: None} if planted else {}) | files


def _file_of(path: str, backbone: str) -> str:
    return path.replace("{backbone}", backbone)


def has_base(card: dict) -> bool:
    """Whether the weights of a backbone before alignment are known."""
    return card["kind"] == "organism" or "base_card" in card


def operations(section: Mapping) -> dict[str, list[float]]:
    """Operation -> its doses, with default doses filled in; in alphabetical order."""
    return _dosed(section["operations"])


def exports(section: Mapping) -> dict[str, list[float]]:
    """Operation -> the doses at which changed models are written, as `operations`."""
    return _dosed(section["export"])


def _dosed(chosen: Mapping[str, list | None]) -> dict[str, list[float]]:
    cards = operation_cards()
    return {name: list(doses or cards[name]["doses"]) for name, doses in sorted(chosen.items())}


def plans(section: Mapping) -> dict[str, dict]:
    """Name -> plan of fine-tuning, with defaults filled in; ``restore`` is as `operations` returns it."""
    return {name: plan | {"restore": _dosed(plan["restore"])} for name, plan in _plans(section).items()}


def _plans(section: Mapping) -> dict[str, dict]:
    rules = schema("config")["properties"]["behaviour"]["properties"]["constraint"]["additionalProperties"]
    filled = {}
    for name, plan in sorted(section["constraint"].items()):
        own = {key: value for key, value in plan.items() if key != "preset"}
        preset = constraint_presets()[plan["preset"]] if "preset" in plan else {}
        filled[name] = with_defaults(preset | own, rules)
    return filled


@cache
def constraint_presets() -> dict[str, dict]:
    """Name -> keys of a plan of fine-tuning as published work has them, without their ``source``."""
    text = (SCHEMAS / "constraint_presets.yaml").read_text(encoding="utf-8")
    return {
        name: {key: value for key, value in preset.items() if key != "source"}
        for name, preset in yaml.safe_load(text).items()
    }


def compares_with_base(section: Mapping) -> bool:
    """Whether an operation or a control needs the weights before alignment."""
    planned = _plans(section).values()
    asked = {
        *section["operations"],
        *section["export"],
        *(name for plan in planned for name in plan["restore"]),
    }
    from_base = any(plan["start"] == "base" or CHANGE in plan["controls"] for plan in planned)
    change = bool(section["operations"]) and CHANGE in section["controls"]
    return from_base or change or not asked.isdisjoint(_needing_base())


def _needing_base() -> list[str]:
    return [name for name, card in operation_cards().items() if card["base"]]
