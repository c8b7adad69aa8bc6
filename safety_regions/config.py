"""The config of a study, checked whole: `read_study` returns a `Study` or one error that lists every problem.

Torch-free and quick: the Snakefile reads the config again in every job of a cluster run.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from safety_regions.adapters.plan import plan_problems, teachers
from safety_regions.catalog import CATALOG, Shelf, check, schema, with_defaults
from safety_regions.errors import StudyError, explain, raise_all, unknown
from safety_regions.families import families
from safety_regions.methods import method_cards
from safety_regions.prompts.sources import Source, choose_source
from safety_regions.regions.agreement import FRACTIONS
from safety_regions.regions.select import scope_count
from safety_regions.selections import FOUND, KEPT, SCOPES, Agreement, parse_agreement, parse_selection

RAW = "raw"
MINUS = "minus-"


class Method(NamedTuple):
    """A method of the study under its label: module on the shelf, full options, stored fractions, selections."""

    module: str
    granularity: str
    options: dict
    kept: dict[str, float]
    selections: tuple[str, ...]


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
    adapters: dict
    allow_empty: bool
    compare_methods: float | None

    def keep_of(self, dataset: str) -> str:
        """Which answered prompts of a dataset are used: refused, complied or all."""
        side = "utility" if dataset in self.utility else "identification"
        return self.responses[f"keep_{side}"]

    def training_sets(self, backbone: str) -> tuple[str, ...]:
        """Datasets that train an organism; none for a checkpoint."""
        return training_sets(self.backbones[backbone])

    def contrast_of(self, method: str) -> str | None:
        """The ordinary dataset a method (by its label) contrasts with; None for a method that has no contrast."""
        chosen = self.methods[method]
        always = method_cards()[chosen.module].get("contrast", False)
        return chosen.options.get("contrast") or (next(iter(self.utility), None) if always else None)

    def needs_adapter(self, method: str) -> bool:
        """Whether a method (by its label) scores the backbone's LoRA adapter."""
        return method_cards()[self.methods[method].module].get("adapter", False)

    @property
    def organisms(self) -> tuple[str, ...]:
        return tuple(name for name, card in self.backbones.items() if card["kind"] == "organism")

    def source_files(self, dataset: str) -> list[str]:
        """Files a dataset is read from; none where it comes from the Hub."""
        path = source_of(dataset, self.datasets[dataset], self.data_dir).path
        if path is None:
            return []
        # Relative where it can be: a study that is moved or copied with its folder has nothing to do again.
        return [str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)]


def training_sets(card: dict) -> tuple[str, ...]:
    """Datasets an organism's card trains on."""
    training = card.get("training", {})
    return tuple(dict.fromkeys([*training.get("harmful", []), *training.get("helpful", [])]))


def shortest_row(card: dict) -> int | None:
    """Inputs of a backbone's narrowest projection; None where its sizes are not known before it is loaded."""
    if "architecture" in card:
        sizes, heads = card["architecture"], "heads"
    elif "path" in card and (Path(card["path"]) / "config.json").is_file():
        sizes, heads = (
            json.loads((Path(card["path"]) / "config.json").read_text(encoding="utf-8")),
            "num_attention_heads",
        )
    else:
        return None
    widths = [sizes.get("hidden_size"), sizes.get("intermediate_size")]
    widths.append(sizes[heads] * sizes["head_dim"] if {heads, "head_dim"} <= sizes.keys() else None)
    return min(filter(None, widths), default=None)


def local_problems(card: dict) -> Iterator[tuple[str, str]]:
    """What keeps a local checkpoint from being loaded, as far as its small files tell: (found, expected)."""
    folder = Path(card["path"])
    if not (folder / "config.json").is_file():
        yield "no config.json", "a checkpoint's directory"
        return
    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    known = families()[card["family"]].layers
    if model_type not in known:
        yield f"model_type '{model_type}'", f"one of family {card['family']}: {', '.join(known)}"
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        yield "no tokenizer_config.json", "the checkpoint's tokenizer"
    elif card["template"] == "native" and not _has_chat_template(folder):
        yield (
            "a tokenizer without chat template",
            "one for `template: native`; else `template: alpaca` or raw",
        )


def _has_chat_template(folder: Path) -> bool:
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return "chat_template" in settings or (folder / "chat_template.jinja").is_file()


def source_of(name: str, card: dict, data_dir: str | None) -> Source:
    """The source of a dataset card that a study with this ``data_dir`` reads; see `choose_source`."""
    return choose_source(name, card, Path(data_dir) if data_dir else None, CATALOG)


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
        adapters = config["adapters"]
        methods = dict(self._methods())
        asked = [method.options.get("over_rejection") for method in methods.values()]
        probes = tuple(name for name in asked if isinstance(name, str))
        wanted = [*identification, *utility, *trainers, *teachers(adapters), *probes]
        wanted = tuple(dict.fromkeys(wanted))
        datasets = self._cards(self.dataset_shelf, "datasets", wanted, "dataset")
        self._check_roles(datasets, {"identification": identification, "utility": utility})
        self._check_roles(datasets, {"identification": adapters["harmful"], "utility": adapters["helpful"]})
        self._check_samples(self._sources(datasets), identification + utility)
        self._check_roles(datasets, {"over-rejection": probes})
        self._check_paths(backbones)
        self._check_rows(backbones, methods)
        if any(method_cards()[method.module].get("adapter") for method in methods.values()):
            self.problems += plan_problems(adapters, backbones, f"{self.where}: adapters")
        return Study(
            seed=config.get("seed", 0),
            data_dir=config.get("data_dir"),
            backbones=backbones,
            datasets=datasets,
            identification=identification,
            utility=utility,
            methods=methods,
            refinements=self._refinements(utility),
            samples=config.get("samples", {}),
            responses=config.get("responses", {}),
            adapters=adapters,
            allow_empty=config.get("allow_empty", False),
            compare_methods=config.get("compare_methods"),
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
                    self._note(
                        f"datasets: {role}", f"'{name}', whose card says role {own}", f"sets of role {role}"
                    )

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
            for found, expected in local_problems(card) if "path" in card else ():
                self._note(f"backbones: {name}", f"{found} in '{card['path']}'", expected)

    def _check_rows(self, backbones: dict[str, dict], methods: dict[str, Method]) -> None:
        """A selection that keeps nothing of a backbone's shortest rows, where the backbone's sizes are known."""
        if self.config.get("allow_empty"):
            return
        sizes = {name: shortest_row(card) for name, card in backbones.items()}
        for label, method in methods.items():
            for scope, fraction in filter(None, map(parse_selection, method.selections)):
                for name, n in sizes.items():
                    if scope == "row" and n and scope_count(fraction, n) == 0:
                        self._note(
                            f"methods: {label}: selections",
                            f"{fraction} of a row of {n} weights of '{name}', which is none",
                            "at least one weight of each row",
                            f"a fraction of at least {1 / n:.3g}, or `allow_empty: true`",
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
