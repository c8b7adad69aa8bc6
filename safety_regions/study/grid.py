"""The grid a study spans: which names, cells and files the workflow plans, and what each job depends on.

Pure functions of a `Study`; the rules put folders around what stands here.
"""

import random
from collections.abc import Iterator
from itertools import combinations, permutations
from math import factorial
from pathlib import Path
from typing import NamedTuple

from safety_regions.study.config import RAW, Study
from safety_regions.study.method_shelf import granularity_of, method_cards, own_selection
from safety_regions.units.names import Part, parse_name, pool

# What of a backbone's card decides numbers; a title or a note does not.
LOADING = ("repo", "revision", "path", "dtype", "template", "system_prompt")
CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


class Cell(NamedTuple):
    """One overlap of the grid: the regions of all identification sets under one selection and refinement."""

    backbone: str
    method: str
    selection: str
    refinement: str

    @property
    def path(self) -> str:
        return "/".join(self)


class Step(NamedTuple):
    """The first ``k`` sets of an order, pooled (``a``), and what they are compared with (``b``)."""

    order: int
    k: int
    against: str
    a: str
    b: str


class Blocks(NamedTuple):
    """Two blocks of ``n`` prompts: of two ``sets``, or two ``blocks`` of one."""

    n: int
    pair: str
    a: str
    b: str


def cells(study: Study) -> Iterator[Cell]:
    """Every cell of the study, in address order.

    A method that always contrasts with a utility set has nothing but ties for that set itself, so that there is nothing
    to subtract: such cells are left out.
    """
    for backbone in study.backbones:
        for label, method in study.methods.items():
            for selection in method.selections:
                for refinement in study.refinements:
                    own = own_selection(method.module, selection)
                    if own or subtracted(refinement) not in _contrasts(study, label):
                        yield Cell(backbone, label, selection, refinement)


def _contrasts(study: Study, label: str) -> tuple[str, ...]:
    """The utility set of which a method has no scores, since it contrasts with it: one or none."""
    always = method_cards()[study.methods[label].module]["contrast"]
    return (study.contrast_of(label),) if always else ()


def compared_utility(study: Study, label: str, refinement: str) -> list[str]:
    """Utility sets whose regions are compared with the identification sets' in the cells of a refinement."""
    without = {subtracted(refinement), *_contrasts(study, label)}
    return sorted(set(study.utility) - without)


def framed_names(study: Study, label: str, refinement: str) -> list[str]:
    """Names whose regions the IoUs of a cell are read against, with the sets themselves where pairs are counted."""
    utility = compared_utility(study, label, refinement)
    sets = sorted(study.identification) + utility
    suffixes = [""] if utility else []
    if not granularity_of(study.methods[label].module).exact_floor:
        suffixes += [f"~{seed}" for seed in shuffle_seeds(study)]
    if study.ceilings:
        suffixes += [".1", ".2"]
    return [name + suffix for suffix in suffixes for name in sets]


def is_contiguous(study: Study, label: str, selection: str) -> bool:
    """Whether a selection of a method is always an unbroken range of layers."""
    own = own_selection(study.methods[label].module, selection)
    return own is not None and own["contiguous"]


def shuffle_seeds(study: Study) -> range:
    """Seeds of the shuffles that the study asks for."""
    return range(1, study.floors + 1)


def pool_steps(study: Study) -> list[Step]:
    """Every pool of the study and what it is compared with; none unless the config asks for orders."""
    steps = []
    for number, order in enumerate(_orders(study), start=1):
        for k in range(1, len(order)):
            a, rest = _pooled(study, order[:k]), _pooled(study, order[k:])
            steps += [
                Step(number, k, "next", a, _pooled(study, order[: k + 1])),
                Step(number, k, "rest", a, rest),
                Step(number, k, "all", a, _pooled(study, order)),
            ]
    return steps


def _orders(study: Study) -> list[tuple[str, ...]]:
    """Different orders of the identification sets, drawn by the config's seed."""
    sets, wanted = sorted(study.identification), study.pools["orders"]
    drawn, rng = [], random.Random(study.pools["seed"])
    if wanted == factorial(len(sets)):
        return list(permutations(sets))
    while len(drawn) < wanted:
        order = tuple(rng.sample(sets, len(sets)))
        drawn += [order] if order not in drawn else []
    return drawn


def _pooled(study: Study, datasets: tuple[str, ...]) -> str:
    if study.pools["prompts"] == "grow" or len(datasets) == 1:
        return pool(*datasets)
    return pool(*datasets, size=max(1, study.samples["identify"] // len(datasets)))


def block_pairs(study: Study) -> list[Blocks]:
    """Every pair of blocks of prompts whose regions are compared; none unless the config asks for sizes."""
    most, sets = study.samples["identify"], sorted(study.identification)
    pairs = []
    for n in sorted(study.sample_sizes["sizes"]):
        blocks = range(1, min(study.sample_sizes["blocks"], most // n) + 1)
        name = {(d, i): d if n == most else str(Part(d, None, n, i)) for d in sets for i in blocks}
        pairs += [Blocks(n, "sets", name[a, i], name[b, i]) for i in blocks for a, b in combinations(sets, 2)]
        pairs += [
            Blocks(n, "blocks", name[d, i], name[d, j]) for d in sets for i, j in combinations(blocks, 2)
        ]
    return pairs


def paired_names(pairs: list[Step] | list[Blocks]) -> list[str]:
    """The names that stand in pairs, each once."""
    return list(dict.fromkeys(name for pair in pairs for name in (pair.a, pair.b)))


def scored_methods(study: Study) -> list[dict[str, str]]:
    """Method and name of every score table of a backbone that is compared with a planted region."""
    return [
        {"method": label, "name": name} for label in study.methods for name in sorted(study.identification)
    ]


def recovered_regions(study: Study) -> list[dict[str, str]]:
    """Method, granularity, name, selection and refinement of every region compared with a planted one."""
    backbone = next(iter(study.backbones))
    return [
        {
            "method": cell.method,
            "granularity": study.methods[cell.method].granularity,
            "name": name,
            "selection": cell.selection,
            "refinement": cell.refinement,
        }
        for cell in cells(study)
        if cell.backbone == backbone
        for name in sorted(study.identification)
    ]


def studied_datasets(study: Study) -> tuple[str, ...]:
    """Identification and utility datasets, in the config's order."""
    return study.identification + study.utility


def loading(card: dict) -> dict:
    """What of a backbone's card decides how it is loaded, sorted by key."""
    return {key: card[key] for key in sorted(LOADING) if card.get(key) is not None}


def local_checkpoint(card: dict) -> list[str]:
    """Files of a checkpoint in a local directory, as inputs of the jobs that load it; none for the Hub."""
    if "path" not in card:
        return []
    found = [*Path(card["path"]).glob("*.json"), *Path(card["path"]).glob("*.safetensors")]
    return sorted(str(path) for path in found)


def name_datasets(name: str) -> tuple[str, ...]:
    """Datasets that must be answered before a name can be scored."""
    return parse_name(name).datasets


def keep_of(study: Study, *names: str | None) -> dict[str, str]:
    """Which answered prompts count, for each dataset of the names."""
    return {dataset: study.keep_of(dataset) for name in names if name for dataset in name_datasets(name)}


def subtracted(refinement: str) -> str | None:
    """The utility dataset of ``minus-X``; None for raw."""
    return None if refinement == RAW else refinement.removeprefix("minus-")
