"""The config of a study, checked whole: `read_study` returns a `Study` or one error that lists every problem.

Torch-free and quick: the Snakefile reads the config again in every job of a cluster run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from safety_regions.catalog import CATALOG, Shelf, check, schema, with_defaults
from safety_regions.errors import StudyError, explain, raise_all, unknown
from safety_regions.methods import method_cards
from safety_regions.prompts.sources import Source, choose_source

# Scopes in which the units of each granularity can be ranked against each other.
SCOPES = {
    "weight": ("row", "matrix", "layer", "global"),
    "neuron": ("matrix", "layer", "global"),
    "layer": ("global",),
}
KEPT = {"weight": {"row": 0.05, "matrix": 0.05}, "neuron": {"matrix": 0.05}, "layer": {"global": 1.0}}
RAW = "raw"
MINUS = "minus-"


class Method(NamedTuple):
    """A method of the study under its label: module on the shelf, full options, stored fractions, selections."""

    module: str
    granularity: str
    options: dict
    kept: dict[str, float]
    selections: tuple[str, ...]


class Selection(NamedTuple):
    scope: str
    fraction: float


@dataclass(frozen=True)
class Study:
    """A checked config: names in the config's order, cards and options with their defaults filled in."""

    seed: int
    data_dir: str | None
    backbones: dict[str, dict]
    datasets: dict[str, dict]
    identification: tuple[str, ...]
    utility: tuple[str, ...]
    methods: dict[str, Method]
    refinements: tuple[str, ...]
    samples: dict
    responses: dict
    allow_empty: bool

    def keep_of(self, dataset: str) -> str:
        """Which answered prompts of a dataset are used: refused, complied or all."""
        side = "utility" if dataset in self.utility else "identification"
        return self.responses[f"keep_{side}"]

    def training_sets(self, backbone: str) -> tuple[str, ...]:
        """Datasets that train an organism; none for a checkpoint."""
        return training_sets(self.backbones[backbone])

    @property
    def organisms(self) -> tuple[str, ...]:
        return tuple(name for name, card in self.backbones.items() if card["kind"] == "organism")

    def source_files(self, dataset: str) -> list[str]:
        """Files a dataset is read from; none where it comes from the Hub."""
        path = source_of(dataset, self.datasets[dataset], self.data_dir).path
        return [] if path is None else [str(path)]


def training_sets(card: dict) -> tuple[str, ...]:
    """Datasets an organism's card trains on."""
    training = card.get("training", {})
    return tuple(dict.fromkeys([*training.get("harmful", []), *training.get("helpful", [])]))


def source_of(name: str, card: dict, data_dir: str | None) -> Source:
    """The source of a dataset card that a study with this ``data_dir`` reads; see `choose_source`."""
    return choose_source(name, card, Path(data_dir) if data_dir else None, CATALOG)


def parse_selection(text: str) -> Selection | None:
    """``row-0.05`` as scope and fraction, or None where the text has another form."""
    match = re.fullmatch(r"(row|matrix|layer|global)-([0-9]+(?:\.[0-9]+)?)", text)
    return Selection(match[1], float(match[2])) if match else None


def read_study(config: dict, where: str = "config") -> Study:
    """Check a config and fill in its defaults.

    Raises:
        StudyError: every problem found, a line each, with the place, what was found and what is allowed.
    """
    problems = check(config, schema("config"), where)
    if problems:
        # What the schema refuses cannot be looked at closer, but the parts it accepts still can.
        broken = {line.removeprefix(where + ": ").split(":")[0] for line in problems}
        config = {key: value for key, value in config.items() if key not in broken}
    config = with_defaults(config, schema("config"))
    reader = _Reader(config, where)
    study = reader.study()
    raise_all("The study cannot start", problems + reader.problems)
    return study


class _Reader:
    """Reads a config section by section and notes problems on the way."""

    def __init__(self, config: dict, where: str) -> None:
        self.config, self.where = config, where
        self.problems: list[str] = []
        inline = config.get("cards", {})
        self.dataset_shelf = Shelf("datasets", inline.get("datasets", {}))
        self.backbone_shelf = Shelf("backbones", inline.get("backbones", {}))

    def study(self) -> Study:
        config = self.config
        sets = config.get("datasets", {})
        identification, utility = tuple(sets.get("identification", ())), tuple(sets.get("utility", ()))
        for name in sorted(set(identification) & set(utility)):
            self._note("datasets", f"'{name}' as identification and as utility", "one role for each dataset")
        backbones = self._cards(self.backbone_shelf, "backbones", config.get("backbones", ()), "backbone")
        trainers = [name for card in backbones.values() for name in training_sets(card)]
        wanted = tuple(dict.fromkeys([*identification, *utility, *trainers]))
        datasets = self._cards(self.dataset_shelf, "datasets", wanted, "dataset")
        self._check_roles(datasets, {"identification": identification, "utility": utility})
        self._check_samples(self._sources(datasets), identification + utility)
        self._check_paths(backbones)
        return Study(
            seed=config.get("seed", 0),
            data_dir=config.get("data_dir"),
            backbones=backbones,
            datasets=datasets,
            identification=identification,
            utility=utility,
            methods=dict(self._methods()),
            refinements=self._refinements(utility),
            samples=config.get("samples", {}),
            responses=config.get("responses", {}),
            allow_empty=config.get("allow_empty", False),
        )

    def _note(self, place: str, found: str, expected: str = "", hint: str = "") -> None:
        self.problems.append(explain(f"{self.where}: {place}", found, expected, hint))

    def _cards(self, shelf: Shelf, place: str, names: tuple, kind: str) -> dict[str, dict]:
        cards = {}
        for name in names:
            if name not in shelf:
                self.problems.append(unknown(f"{self.where}: {place}", kind, name, shelf.names))
                continue
            card = self._card(shelf, name, kind)
            if card is not None:
                cards[name] = card
        return cards

    def _card(self, shelf: Shelf, name: str, kind: str) -> dict | None:
        try:
            card = shelf.read(name)
        except yaml.YAMLError as error:
            line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
            self.problems.append(explain(shelf.where(name), f"broken YAML in line {line}", "a YAML mapping"))
            return None
        if kind == "backbone":
            kind = card.get("kind") if isinstance(card, dict) else None
            if kind not in ("checkpoint", "organism"):
                self.problems.append(
                    explain(f"{shelf.where(name)}: kind", f"'{kind}'", "checkpoint or organism")
                )
                return None
        problems = check(card, schema(kind), shelf.where(name))
        self.problems += problems
        return None if problems else with_defaults(card, schema(kind))

    def _check_roles(self, datasets: dict[str, dict], asked: dict[str, tuple[str, ...]]) -> None:
        for role, names in asked.items():
            for name in names:
                own = datasets[name]["role"] if name in datasets else role
                if own != role:
                    self._note(f"datasets: {role}", f"'{name}', whose card says role {own}", f"sets of role {role}")

    def _check_samples(self, sources: dict[str, Source], studied: tuple[str, ...]) -> None:
        samples = self.config.get("samples")
        if samples is None:
            return
        if samples["candidates"] < samples["identify"]:
            self._note(
                "samples: candidates",
                str(samples["candidates"]),
                f"at least identify ({samples['identify']})",
            )
        for name in studied:
            rows = sources[name].given.get("rows") if name in sources else None
            if rows is None:
                continue
            left = rows - round(samples["evaluate_fraction"] * rows)
            if left < samples["identify"]:
                self._note(
                    "samples: identify",
                    f"{samples['identify']}",
                    f"at most {left}, the identification prompts of '{name}' ({rows} rows)",
                    "fewer samples, or a smaller evaluate_fraction",
                )

    def _sources(self, datasets: dict[str, dict]) -> dict[str, Source]:
        data_dir = self.config.get("data_dir")
        if data_dir is not None and not Path(data_dir).is_dir():
            self._note("data_dir", f"'{data_dir}', which is no folder", "a folder with the datasets' files")
            return {}
        found = {}
        for name, card in datasets.items():
            try:
                found[name] = source_of(name, card, data_dir)
            except StudyError as error:
                self.problems.append(f"{self.where}: datasets: {error}")
                continue
            path = found[name].path
            if path is not None and not path.is_file():
                self._note(f"datasets: {name}", f"no file {path}", "the file its card names")
        return found

    def _check_paths(self, backbones: dict[str, dict]) -> None:
        for name, card in backbones.items():
            if "path" in card and not (Path(card["path"]) / "config.json").is_file():
                self._note(
                    f"backbones: {name}", f"no config.json in '{card['path']}'", "a checkpoint's directory"
                )

    def _refinements(self, utility: tuple[str, ...]) -> tuple[str, ...]:
        asked = self.config.get("refinements")
        known = (RAW, *(MINUS + name for name in utility))
        for name in asked or ():
            if name not in known:
                self.problems.append(unknown(f"{self.where}: refinements", "refinement", name, known))
        return known if asked is None else tuple(asked)

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
            kept = self._kept(card["granularity"])
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

    def _kept(self, granularity: str) -> dict[str, float]:
        asked = {scope: f for scope, f in self.config.get("kept", {}).items() if scope in SCOPES[granularity]}
        return {**KEPT[granularity], **asked}

    def _check_selection(self, place: str, text: str, granularity: str, kept: dict[str, float]) -> None:
        selection = parse_selection(text)
        form = f"{'|'.join(SCOPES[granularity])}-fraction, e.g. {SCOPES[granularity][0]}-0.05"
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
