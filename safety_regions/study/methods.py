"""The methods of a config: modules of the shelf with their options, stored fractions and selections, checked."""

from collections.abc import Iterator
from typing import NamedTuple

from safety_regions.errors import explain, unknown
from safety_regions.methods.safeneuron.selection import FRACTIONS
from safety_regions.study.catalog import check, with_defaults
from safety_regions.study.method_shelf import method_cards
from safety_regions.units.selections import FOUND, KEPT, SCOPES, Agreement, parse_agreement, parse_selection


class Method(NamedTuple):
    """A method of the study under its label: module on the shelf, full options, stored fractions, selections."""

    module: str
    granularity: str
    options: dict
    kept: dict[str, float]
    selections: tuple[str, ...]


class MethodReader:
    """Reads the methods of a config and notes problems on the way, a sentence each."""

    def __init__(self, config: dict, where: str) -> None:
        self.config, self.where = config, where
        self.problems: list[str] = []

    def read(self) -> dict[str, Method]:
        """Label -> method; those that cannot be read are left out."""
        return dict(self._methods())

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
            self._check_compared(place, kept)
            for text in selections:
                self._check_selection(place, text, card["granularity"], kept)
            yield label, Method(module, card["granularity"], options, kept, tuple(selections))

    def _preset(self, place: str, card: dict, given: dict) -> dict:
        name = given.get("preset")
        if name is None:
            return {}
        if name not in card["presets"]:
            self.problems.append(unknown(f"{self.where}: {place}: preset", "preset", name, card["presets"]))
        return card["presets"].get(name, {})

    def _options(self, place: str, card: dict, given: dict) -> dict:
        rules = {"type": "object", "additionalProperties": False, "properties": card["options"]}
        self.problems += check(given, rules, f"{self.where}: {place}: options")
        return with_defaults(given, rules)

    def _check_compared(self, place: str, kept: dict[str, float]) -> None:
        fraction = self.config.get("compare_methods")
        scope = "matrix" if "matrix" in kept else "global"
        if fraction and fraction > kept[scope]:
            self._note(
                f"{place}: compare_methods", f"{fraction} where {kept[scope]} of scope {scope} is stored",
                "at most the stored fraction", f"`kept: {{{scope}: {fraction}}}`",
            )  # fmt: skip

    def _check_contrast(self, place: str, card: dict, options: dict) -> None:
        utility = self.config.get("datasets", {}).get("utility", ())
        asked = options.get("contrast")
        if asked and asked not in utility:
            self.problems.append(
                unknown(f"{self.where}: {place}: options: contrast", "utility set", asked, utility)
            )
        elif card.get("contrast") and not utility:
            self._note(place, "no utility set to contrast with", "one under datasets: utility")

    def _kept(self, card: dict) -> dict[str, float]:
        granularity = card["granularity"]
        asked = {scope: f for scope, f in self.config.get("kept", {}).items() if scope in SCOPES[granularity]}
        # What is stored whole by default is small, and stays whole whatever `kept` says for weights.
        whole = {scope: f for scope, f in KEPT[granularity].items() if f == 1}
        return {**KEPT[granularity], **card.get("kept", {}), **asked, **whole}

    def _check_selection(self, place: str, text: str, granularity: str, kept: dict[str, float]) -> None:
        found = FOUND.get(granularity, ())
        if text in found:
            return
        agreement = parse_agreement(text)
        if agreement and granularity == "neuron":
            self._check_agreement(f"{place}: selections", text, agreement)
            return
        selection = parse_selection(text)
        form = f"{'|'.join(SCOPES[granularity])}-fraction, e.g. {SCOPES[granularity][0]}-0.05"
        form += "".join(f", or {name}" for name in found)
        form += ", or e.g. common-0.2, common-0.2-0.9, above-0.01" if granularity == "neuron" else ""
        if selection is None or selection.scope not in SCOPES[granularity]:
            self._note(f"{place}: selections", f"'{text}'", form)
        elif not 0 < selection.fraction <= 1:
            self._note(
                f"{place}: selections", f"fraction {selection.fraction} in '{text}'", "more than 0, at most 1"
            )
        elif selection.fraction > kept.get(selection.scope, 0):
            stored = kept.get(selection.scope, "nothing")
            self._note(
                f"{place}: selections",
                f"'{text}' where {stored} of scope {selection.scope} is stored",
                "at most the stored fraction",
                f"`kept: {{{selection.scope}: {selection.fraction}}}`",
            )

    def _check_agreement(self, place: str, text: str, agreement: Agreement) -> None:
        rule, threshold, presence = agreement
        if threshold == 0 or (rule == "common" and threshold not in FRACTIONS and threshold > 1):
            most = "at most 1" if rule == "common" else "any importance"
            self._note(place, f"{threshold} in '{text}'", f"more than 0, {most}")
        if not 0 < presence <= 1:
            self._note(place, f"presence {presence} in '{text}'", "more than 0, at most 1")
