"""Read and check the methods of a config: module, options, stored fractions and selections."""

from collections.abc import Iterator
from typing import NamedTuple

from safety_regions.errors import explain, unknown
from safety_regions.study.catalog import check, with_defaults, with_types
from safety_regions.study.method_shelf import granularity_of, method_cards, own_selection
from safety_regions.units.granularity import GRANULARITIES, Granularity
from safety_regions.units.selections import parse_selection


class Minus(NamedTuple):
    """The utility regions that refinements subtract: label of their method and their selection; None: the same."""

    method: str | None = None
    selection: str | None = None


class Method(NamedTuple):
    """A method of the study: module, granularity, all options, stored fractions, selections, what is subtracted."""

    module: str
    granularity: str
    options: dict
    kept: dict[str, float]
    selections: tuple[str, ...]
    minus: Minus = Minus()

    @property
    def has_subspaces(self) -> bool:
        """Whether its regions are subspaces, which have no memberships and no weights."""
        return GRANULARITIES[self.granularity].subspaces


class MethodReader:
    """Reads the methods of a config and collects problems, one sentence each."""

    def __init__(self, config: dict, where: str) -> None:
        self.config, self.where = config, where
        self.problems: list[str] = []

    def read(self) -> dict[str, Method]:
        """Label -> method, without the methods that cannot be read."""
        methods = dict(self._methods())
        for label in methods:
            self._check_minus(label, methods)
        return methods

    def _note(self, place: str, found: str, expected: str = "", hint: str = "") -> None:
        self.problems.append(explain(f"{self.where}: {place}", found, expected, hint))

    def _methods(self) -> Iterator[tuple[str, Method]]:
        for label, given in self.config.get("methods", {}).items():
            given = given or {}
            module = given.get("method", label)
            place = f"methods: {label}"
            if module not in method_cards():
                self.problems.append(unknown(f"{self.where}: {place}", "method", module, method_cards()))
                continue
            card = method_cards()[module]
            preset = self._preset(place, card, given)
            options = self._options(place, card, {**preset.get("options", {}), **given.get("options", {})})
            selections = given.get("selections") or preset.get("selections") or card["selections"]
            self._check_contrast(place, card, options)
            kept = self._kept(card)
            self._check_compared(place, GRANULARITIES[card["granularity"]], kept)
            for text in selections:
                self._check_selection(f"{place}: selections", module, text, kept)
            minus = Minus(**given.get("minus", {}))
            yield label, Method(module, card["granularity"], options, kept, tuple(selections), minus)

    def _preset(self, place: str, card: dict, given: dict) -> dict:
        name = given.get("preset")
        if name is None:
            return {}
        if name not in card["presets"]:
            self.problems.append(unknown(f"{self.where}: {place}: preset", "preset", name, card["presets"]))
        return card["presets"].get(name, {})

    def _options(self, place: str, card: dict, given: dict) -> dict:
        rules = {"type": "object", "additionalProperties": False, "properties": card["options"]}
        given = with_types(given, rules)
        self.problems += check(given, rules, f"{self.where}: {place}: options")
        return with_defaults(given, rules)

    def _check_compared(self, place: str, kind: Granularity, kept: dict[str, float]) -> None:
        scope = kind.compared_in
        fraction = self.config.get("compare_methods")
        if fraction and fraction > kept[scope] and not kind.subspaces:
            self._note(
                f"{place}: compare_methods",
                f"{fraction} where {kept[scope]} of scope {scope} is stored",
                "at most the stored fraction",
                f"`kept: {{{scope}: {fraction}}}`",
            )

    def _check_contrast(self, place: str, card: dict, options: dict) -> None:
        utility = self.config.get("datasets", {}).get("utility", ())
        asked = options.get("contrast")
        if asked and asked not in utility:
            self.problems.append(
                unknown(f"{self.where}: {place}: options: contrast", "utility set", asked, utility)
            )
        elif card["contrast"] and not utility:
            self._note(
                place, "no utility set to contrast with", "at least one dataset under `datasets: utility`"
            )

    def _kept(self, card: dict) -> dict[str, float]:
        stored = GRANULARITIES[card["granularity"]].stored
        scopes = GRANULARITIES[card["granularity"]].scopes
        asked = {scope: f for scope, f in self.config.get("kept", {}).items() if scope in scopes}
        # Scores that are stored in full by default are small; they are always stored in full, whatever `kept` says.
        whole = {scope: f for scope, f in stored.items() if f == 1}
        return {**stored, **card["kept"], **asked, **whole}

    def _check_minus(self, label: str, methods: dict[str, Method]) -> None:
        """Note if a method's ``minus`` names an unknown method, other units, or scores that are not stored."""
        method, place = methods[label], f"methods: {label}: minus"
        other = method.minus.method or label
        if other not in methods:
            if other not in self.config["methods"]:
                self.problems.append(
                    unknown(f"{self.where}: {place}: method", "label of a method", other, methods)
                )
            return
        found = methods[other]
        theirs, ours = granularity_of(found.module), granularity_of(method.module)
        if theirs != ours:
            expected = f"a method that scores {_units(ours)}"
            self._note(f"{place}: method", f"'{other}', which scores {_units(theirs)}", expected)
        elif method.minus != Minus():
            wanted = (method.minus.selection,) if method.minus.selection else method.selections
            for text in wanted:
                self._check_selection(f"{place}: selection", found.module, text, found.kept)

    def _check_selection(self, place: str, module: str, text: str, kept: dict[str, float]) -> None:
        if own_selection(module, text):
            return
        scopes, selection = granularity_of(module).scopes, parse_selection(text)
        if selection is None or selection.scope not in scopes:
            own = method_cards()[module]["own_selections"].values()
            form = f"{'|'.join(scopes)}-fraction, e.g. {scopes[0]}-0.05"
            form += "".join(f"; or e.g. {entry['example']} ({entry['description']})" for entry in own)
            self._note(place, f"'{text}'", form)
        elif not 0 < selection.fraction <= 1:
            self._note(place, f"fraction {selection.fraction} in '{text}'", "more than 0, at most 1")
        elif selection.fraction > kept.get(selection.scope, 0):
            stored = kept.get(selection.scope, "nothing")
            self._note(
                place,
                f"'{text}', but only {stored} of scope {selection.scope} is stored",
                "at most the stored fraction",
                f"`kept: {{{selection.scope}: {selection.fraction}}}` at the top level of the config",
            )


def _units(kind: Granularity) -> str:
    return f"{kind.plural} of {', '.join(kind.projections)}" if kind.projections else kind.plural
