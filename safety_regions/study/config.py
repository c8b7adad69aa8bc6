"""Check the config of a study: `read_study` returns a `Study`, or raises one error that lists every problem.

Torch-free and fast, because the Snakefile reads the config again in every job of a cluster run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import factorial
from pathlib import Path

from safety_regions.errors import StudyError, explain, raise_all, unknown
from safety_regions.study.adapters import plan_problems, rank_of, teachers
from safety_regions.study.behaviour import behaviour_problems
from safety_regions.study.catalog import CATALOG, Shelf, check, schema, with_defaults, with_types
from safety_regions.study.checkpoints import (
    gguf_problems,
    local_problems,
    pair_problems,
    unit_counts,
)
from safety_regions.study.method_shelf import method_cards
from safety_regions.study.methods import Method, MethodReader
from safety_regions.study.scope_sizes import BackboneSizes, asked_fractions, empty_fractions
from safety_regions.study.sources import Source, choose_source
from safety_regions.study.yaml_keys import repeated_keys
from safety_regions.units.names import LONGEST_NAME, MOST_NAMES

RAW = "raw"
MINUS = "minus-"
TRAINING_KINDS = ("harmful", "helpful", "unseen")
COMPARED_TABLES = ("overlap/iou.parquet", "report/verdict.tsv")
"""Tables that a results folder must have to be compared with this study."""


@dataclass(frozen=True)
class Study:
    """A checked config: names in the config's order, cards and options with defaults filled in.

    The card of a backbone that names a base also has the base's card, ``base_card``. ``judges`` are the cards of the
    checkpoints that judge answers. ``compare_with``: name -> results folder of another study.
    """

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
    floors: int
    ceilings: bool
    pools: dict
    sample_sizes: dict
    crossed: bool
    label_permutations: int
    regroupings: int
    behaviour: dict
    judges: dict[str, dict]
    compare_with: dict[str, str]

    @property
    def models(self) -> dict[str, dict]:
        """Name -> card of every backbone, of every base that one of them names, and of every judge."""
        return bases_of(self.backbones) | self.judges | self.backbones

    def keep_of(self, dataset: str) -> str:
        """Which prompts of a dataset are used, by their response: refused, complied or all."""
        side = "utility" if dataset in self.utility else "identification"
        return self.responses[f"keep_{side}"]

    def training_sets(self, backbone: str) -> tuple[str, ...]:
        """Datasets that an organism is trained on, or answers after training; empty for a checkpoint."""
        return training_sets(self.backbones[backbone])

    def contrast_of(self, method: str) -> str | None:
        """The utility dataset that a method (by its label) contrasts with; None for a method without contrast."""
        chosen = self.methods[method]
        always = method_cards()[chosen.module]["contrast"]
        return chosen.options.get("contrast") or (next(iter(self.utility), None) if always else None)

    def swept_dataset(self, method: str) -> str | None:
        """The dataset whose prompts the sweep of a method (by its label) uses; None for a method without a sweep."""
        found = swept_dataset(self.methods[method])
        return found[0] if found else None

    def is_data_free(self, method: str) -> bool:
        """Whether the scores of a method (by its label) depend on no prompt."""
        return method_cards()[self.methods[method].module]["data_free"]

    def needs_adapter(self, method: str) -> bool:
        """Whether a method (by its label) scores the backbone's LoRA adapter."""
        return method_cards()[self.methods[method].module]["adapter"]

    def needs_base(self, method: str) -> bool:
        """Whether a method (by its label) compares the backbone with its base."""
        return needs_base(self.methods[method])

    @property
    def organisms(self) -> tuple[str, ...]:
        return tuple(name for name, card in self.backbones.items() if card["kind"] == "organism")

    @property
    def planted(self) -> tuple[str, ...]:
        """Organisms with a planted region."""
        return tuple(name for name in self.organisms if self.backbones[name].get("plant"))

    def source_files(self, dataset: str) -> list[str]:
        """Files that a dataset is read from; an empty list if it comes from the Hub."""
        path = source_of(dataset, self.datasets[dataset], self.data_dir).path
        if path is None:
            return []
        # Relative if possible, so that moving or copying a study with its folder reruns nothing.
        return [str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)]


def bases_of(backbones: dict[str, dict]) -> dict[str, dict]:
    """Name -> card of every checkpoint that a backbone names as its base."""
    return {card["base"]: card["base_card"] for card in backbones.values() if "base_card" in card}


def swept_dataset(method: Method) -> tuple[str, str] | None:
    """The dataset that a method's sweep uses, and the role it must have; None for a method without a sweep."""
    sweep = method_cards()[method.module].get("sweep")
    name = method.options.get(sweep["option"]) if sweep else None
    return (name, sweep["role"]) if isinstance(name, str) else None


def needs_base(method: Method) -> bool:
    """Whether a method compares the backbone with its base."""
    option = method_cards()[method.module]["base"]
    return option is True or bool(method.options.get(option))


def training_sets(card: dict) -> tuple[str, ...]:
    """Datasets that the organism of this card is trained on, or answers after training."""
    training = card.get("training", {})
    return tuple(dict.fromkeys(name for kind in TRAINING_KINDS for name in training.get(kind, [])))


def source_of(name: str, card: dict, data_dir: str | None) -> Source:
    """The source that a study with this ``data_dir`` reads a dataset from; see `choose_source`."""
    return choose_source(name, card, Path(data_dir) if data_dir else None, CATALOG)


def config_name(files: Sequence[str | Path]) -> str:
    """How errors name the config that was read from these files: by the file, if it is one."""
    return Path(files[0]).name if len(files) == 1 else "config"


def read_study(config: dict, where: str = "config", files: Sequence[str | Path] = ()) -> Study:
    """Check a config and fill in its defaults.

    Args:
        config: as it was written.
        where: how errors name it.
        files: the files that it was read from; a key that occurs twice in one of them is a problem.

    Raises:
        StudyError: lists every problem, one per line, with its location, what was found and what is allowed.
    """
    config = with_types(config, schema("config"))
    problems = check(config, schema("config"), where)
    if problems:
        # Parts that violate the schema are dropped; the others are checked further.
        broken = {line.removeprefix(where + ": ").split(":")[0] for line in problems}
        cards = _cards_in(config.get("cards"))
        config = {key: value for key, value in config.items() if key not in broken} | {"cards": cards}
    config = with_defaults(config, schema("config"))
    reader = _Reader(config, where)
    study = reader.study()
    raise_all("The config is not valid", _keys_given_twice(files) + problems + reader.problems)
    return study


def _cards_in(section: object) -> dict[str, dict]:
    """The usable part of a section `cards` that may violate the schema, so that its names are not called unknown."""
    section = section if isinstance(section, dict) else {}
    return {
        kind: {name: card for name, card in cards.items() if isinstance(name, str)}
        for kind, cards in section.items()
        if isinstance(cards, dict)
    }


def _keys_given_twice(files: Sequence[str | Path]) -> list[str]:
    texts = {Path(file).name: Path(file).read_text(encoding="utf-8") for file in files}
    return [problem for name, text in texts.items() for problem in repeated_keys(text, name)]


class _Reader:
    """Reads a config section by section and collects problems."""

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
            self._note("datasets", f"'{name}' under both identification and utility", "one role per dataset")
        backbones = self._cards(self.backbone_shelf, "backbones", config.get("backbones", ()), "backbone")
        backbones = {name: self._with_base(name, card) for name, card in backbones.items()}
        trainers = [name for card in backbones.values() for name in training_sets(card)]
        adapters = config["adapters"]
        reader = MethodReader(config, self.where)
        methods = reader.read()
        self.problems += reader.problems
        swept = [asked for asked in map(swept_dataset, methods.values()) if asked is not None]
        wanted = [*identification, *utility, *trainers, *teachers(adapters), *(name for name, _ in swept)]
        wanted = tuple(dict.fromkeys(wanted))
        datasets = self._cards(self.dataset_shelf, "datasets", wanted, "dataset")
        self._check_roles(datasets, {"identification": identification, "utility": utility})
        self._check_roles(datasets, {"identification": adapters["harmful"], "utility": adapters["helpful"]})
        self._check_samples(self._sources(datasets), identification + utility)
        for name, role in swept:
            self._check_roles(datasets, {role: (name,)})
        self._check_responses()
        self._check_asked_responses(methods)
        self._check_sizes()
        self._check_compared()
        self._check_numbers(identification, methods)
        self._check_pools(identification)
        self._check_regroupings(identification, methods)
        if config.get("floors") == 1:
            self._note(
                "floors", "1", "0, or at least 2: the interval of a floor is not known from one shuffle"
            )
        if 0 < config.get("label_permutations", 0) < 19:
            self._note(
                "label_permutations",
                str(config["label_permutations"]),
                "0, or at least 19: with fewer splits no p-value is 0.05 or less",
            )
        for label, name in product(filter(lambda label: needs_base(methods[label]), methods), backbones):
            if "base" not in backbones[name] and backbones[name]["kind"] != "organism":
                option = method_cards()[methods[label].module]["base"]
                place = f"methods: {label}" + ("" if option is True else f": options: {option}")
                self._note(
                    place,
                    f"'{name}', which names no base",
                    "an organism, or a card with a base, as every backbone",
                )
        self._check_paths(backbones | bases_of(backbones))
        self._check_scopes(backbones, methods)
        if any(method_cards()[method.module]["adapter"] for method in methods.values()):
            self.problems += plan_problems(adapters, backbones, f"{self.where}: adapters")
        refinements = self._refinements(utility)
        section = config.get("behaviour") or {}
        judges = self._cards(self.backbone_shelf, "behaviour: judges", section.get("judges", ()), "backbone")
        self._check_paths(judges)
        self.problems += behaviour_problems(
            section,
            backbones,
            methods,
            refinements,
            judges,
            config.get("samples", {}).get("evaluate", 1),
            f"{self.where}: behaviour",
        )
        return Study(
            seed=config.get("seed", 0),
            data_dir=config.get("data_dir"),
            backbones=backbones,
            datasets=datasets,
            identification=identification,
            utility=utility,
            methods=methods,
            refinements=refinements,
            samples=config.get("samples", {}),
            responses=config.get("responses", {}),
            adapters=adapters,
            allow_empty=config.get("allow_empty", False),
            compare_methods=config.get("compare_methods"),
            floors=config.get("floors", 0),
            ceilings=config.get("ceilings", False),
            pools=config.get("pools", {}),
            sample_sizes=config.get("sample_sizes", {}),
            crossed=config.get("crossed", False),
            label_permutations=config.get("label_permutations", 0),
            regroupings=config.get("regroupings", 0),
            behaviour=section,
            judges=judges,
            compare_with=config.get("compare_with", {}),
        )

    def _note(self, place: str, found: str, expected: str = "", hint: str = "") -> None:
        self.problems.append(explain(f"{self.where}: {place}", found, expected, hint))

    def _cards(self, shelf: Shelf, place: str, names: tuple, kind: str) -> dict[str, dict]:
        cards = {}
        for name in names:
            misnamed = shelf.misnamed(name)
            if misnamed:
                self.problems.append(f"{self.where}: {place}: {misnamed}")
                continue
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
        except StudyError as error:
            self.problems.append(str(error))
            return None
        if kind == "backbone":
            kind = card.get("kind") if isinstance(card, dict) else None
            if kind not in ("checkpoint", "organism"):
                self.problems.append(
                    explain(f"{shelf.where(name)}: kind", f"'{kind}'", "checkpoint or organism")
                )
                return None
        card = with_types(card, schema(kind))
        problems = check(card, schema(kind), shelf.where(name))
        self.problems += problems
        return None if problems else with_defaults(card, schema(kind))

    def _with_base(self, name: str, card: dict) -> dict:
        """The card of a backbone with the card of its base, if it names one, as ``base_card``."""
        place = f"backbones: {name}: base"
        asked = (card["base"],) if "base" in card else ()
        for base in self._cards(self.backbone_shelf, place, asked, "backbone").values():
            for found, expected in pair_problems(card, base):
                self._note(place, f"'{card['base']}', {found}", expected)
            card = {**card, "base_card": base}
        return card

    def _check_roles(self, datasets: dict[str, dict], asked: dict[str, tuple[str, ...]]) -> None:
        for role, names in asked.items():
            for name in names:
                own = datasets[name]["role"] if name in datasets else role
                if own != role:
                    self._note(
                        f"datasets: {role}",
                        f"'{name}', whose card has role {own}",
                        f"datasets with role {role}",
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
                    f"at most {left}, the number of identification prompts of '{name}' ({rows} rows)",
                    "a smaller identify, or a smaller evaluate_fraction",
                )

    def _check_responses(self) -> None:
        responses = self.config.get("responses")
        if responses is None:
            return
        fixed = responses["origin"] == "fixed"
        if fixed != (responses["text"] is not None):
            found = "no text" if fixed else f"a text, and origin {responses['origin']}"
            self._note("responses: text", found, "a text if origin is fixed, and only then")
        for key in ("keep_identification", "keep_utility"):
            if fixed and responses[key] != "all":
                expected = "all, because origin fixed gives every prompt the same response"
                self._note(f"responses: {key}", responses[key], expected)

    def _check_asked_responses(self, methods: dict[str, Method]) -> None:
        """Note methods that are about other responses to harmful prompts than the config keeps.

        Harmful answers are read from the sets' own files; the workflow does not make any for this purpose.
        """
        responses = self.config.get("responses")
        for label, method in methods.items() if responses else ():
            option = method_cards()[method.module]["asks_for"]
            asked, origin, kept = (
                method.options.get(option),
                responses["origin"],
                responses["keep_identification"],
            )
            if asked == "complied" and (origin, kept) != ("dataset", "complied"):
                self._note(
                    f"methods: {label}: options: {option}",
                    f"'complied' with responses of origin {origin}, of which {kept} are kept",
                    "harmful answers from the sets' own files",
                    "`responses: {origin: dataset, keep_identification: complied}` and sets with such responses",
                )
            if asked == "refused" and kept == "complied":
                self._note(
                    f"methods: {label}: options: {option}",
                    "'refused', and responses of which complied are kept",
                    "refusals, or the option 'complied'",
                    "`responses: {keep_identification: refused}`",
                )

    def _check_sizes(self) -> None:
        most = self.config.get("samples", {}).get("identify", 0)
        for size in self.config.get("sample_sizes", {}).get("sizes", ()):
            if size > most:
                self._note("sample_sizes: sizes", str(size), f"at most `samples: identify` ({most})")

    def _check_compared(self) -> None:
        for name, folder in self.config.get("compare_with", {}).items():
            for file in COMPARED_TABLES:
                if not (Path(folder) / file).is_file():
                    expected = "the results folder of a finished study"
                    self._note(f"compare_with: {name}", f"no file {Path(folder) / file}", expected)

    def _check_numbers(self, identification: tuple[str, ...], methods: dict[str, Method]) -> None:
        most = f"at most {MOST_NAMES}, the largest number that can be compared at once"
        if len(identification) > MOST_NAMES:
            self._note("datasets: identification", f"{len(identification)} sets", most, "several studies")
        if self.config.get("compare_methods") and len(methods) > MOST_NAMES:
            self._note("compare_methods", f"{len(methods)} methods", most, "several studies")

    def _check_regroupings(self, identification: tuple[str, ...], methods: dict[str, Method]) -> None:
        asked, n = self.config.get("regroupings", 0), len(identification)
        for label in (name for name, method in methods.items() if asked and method.has_subspaces):
            found = f"the regions of '{label}', which are subspaces: more than two have no intersection"
            self._note("regroupings", found, "methods whose regions are units")
        if asked > n or (asked and n < 2):
            expected = f"at most {n}, the number of identification sets, of which there must be 2"
            self._note("regroupings", str(asked), expected)
        most = self.config.get("samples", {}).get("identify", 0)
        if asked and (most < n or most % max(1, n)):
            why = "so that a regrouped set has as many prompts as a set, and equal parts of all"
            hint = f"{max(n, most - most % max(1, n))}, or no `regroupings`"
            self._note("samples: identify", f"{most} for {n} sets", f"a multiple of {n}, {why}", hint)
        length = len("+".join(f"{name}@{most // max(1, n)}x{n}" for name in identification))
        if asked and length > LONGEST_NAME:
            found = f"names of {length} characters for the groups"
            hint = "fewer sets, or inline cards with shorter names"
            self._note(
                "regroupings", found, f"at most {LONGEST_NAME}, because files are named after them", hint
            )

    def _check_pools(self, identification: tuple[str, ...]) -> None:
        orders, n = self.config.get("pools", {}).get("orders", 0), len(identification)
        if orders and n < 3:
            self._note("pools", f"{n} identification sets", "at least 3, to pool them in several orders")
        elif orders > factorial(n):
            self._note(
                "pools: orders", str(orders), f"at most {factorial(n)}, the number of orders of {n} sets"
            )

    def _sources(self, datasets: dict[str, dict]) -> dict[str, Source]:
        data_dir = self.config.get("data_dir")
        if data_dir is not None and not Path(data_dir).is_dir():
            self._note(
                "data_dir", f"'{data_dir}', which is not a folder", "a folder with the datasets' files"
            )
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
                self._note(f"datasets: {name}", f"no file {path}", "the file that the dataset's card names")
        return found

    def _check_paths(self, backbones: dict[str, dict]) -> None:
        for name, card in backbones.items():
            for found, expected in local_problems(card) if "path" in card else ():
                self._note(f"backbones: {name}", f"{found} in '{card['path']}'", expected)
            gguf = card.get("gguf", {})
            for found, expected in gguf_problems(gguf) if "path" in gguf else ():
                self._note(f"backbones: {name}: gguf", f"{found} ('{gguf['path']}')", expected)

    def _check_scopes(self, backbones: dict[str, dict], methods: dict[str, Method]) -> None:
        adapters, allow_empty = self.config["adapters"], self.config.get("allow_empty", False)
        for name, card in backbones.items():
            sizes = BackboneSizes(name, unit_counts(card), rank_of(adapters, name))
            for label, method in methods.items():
                asked = asked_fractions(label, method, allow_empty, self.config.get("compare_methods"))
                self.problems += empty_fractions(sizes, asked, self.where)

    def _refinements(self, utility: tuple[str, ...]) -> tuple[str, ...]:
        asked = self.config.get("refinements")
        known = (RAW, *(MINUS + name for name in utility))
        for name in asked or ():
            if name not in known:
                self.problems.append(unknown(f"{self.where}: refinements", "refinement", name, known))
        return known if asked is None else tuple(asked)
