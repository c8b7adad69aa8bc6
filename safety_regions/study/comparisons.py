"""What a study compares beyond its cells: pools, regrouped prompts, blocks of prompts, crossed responses, splits.

Pure functions of a `Study`, as in `grid`.
"""

import random
from itertools import combinations, permutations
from math import factorial
from typing import NamedTuple

from safety_regions.study.config import Study
from safety_regions.study.grid import cells, shuffle_kind, shuffle_seeds, subtracted
from safety_regions.study.method_shelf import granularity_of, own_selection
from safety_regions.units.names import Name, Part, parse_name, pool
from safety_regions.units.selections import parse_selection


class Step(NamedTuple):
    """A pool ``a`` of the first ``k`` sets of an order, and the name ``b`` that it is compared with."""

    order: int
    k: int
    against: str
    a: str
    b: str


class Crossed(NamedTuple):
    """A set ``a``, and a name ``b`` that has the same prompts or the same responses as ``a``; ``same`` says which."""

    same: str
    a: str
    b: str


class Group(NamedTuple):
    """Names whose regions are taken together, more and more of them.

    ``kind`` is "sets", "shuffled" (the sets with their statistics shuffled; ``draw`` is the seed) or "regrouped" (the
    prompts of all sets in other groups; ``draw`` is the number of the regrouping). ``draw`` is 0 for the sets.
    """

    kind: str
    draw: int
    names: list[str]


class Blocks(NamedTuple):
    """Two blocks of ``n`` prompts.

    ``pair`` is "sets" (from two datasets), "blocks" (two from one dataset) or "shuffled" (from two datasets, with the
    statistics of each shuffled).
    """

    n: int
    pair: str
    a: str
    b: str


def pool_steps(study: Study) -> list[Step]:
    """Every pool of the study and what it is compared with; empty if ``pools: orders`` is 0."""
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


def shuffled_steps(study: Study, label: str, selection: str) -> list[tuple[str, str]]:
    """a and b of every step of `pool_steps`, with the statistics of each set shuffled by itself (seed 1).

    Empty if the study has no floors, or for a method (by its label) that has none or whose floor needs no shuffles.
    """
    if not _has_shuffles(study, label):
        return []
    kind = shuffle_kind(selection)
    return [(_shuffled(step.a, kind), _shuffled(step.b, kind)) for step in pool_steps(study)]


def _has_shuffles(study: Study, label: str) -> bool:
    exact = granularity_of(study.methods[label].module).exact_floor
    return bool(study.floors) and not (exact or study.is_data_free(label))


def _shuffled(name: str, kind: str) -> str:
    parts = parse_name(name).parts
    return str(Name(parts, 1, kind, apart=len(parts) > 1))


def pool_names(study: Study, label: str, selection: str) -> list[str]:
    """The names that the pools of a cell are compared by, each once: those of its steps, and shuffled ones."""
    shuffled = (name for pair in shuffled_steps(study, label, selection) for name in pair)
    return list(dict.fromkeys([*paired_names(pool_steps(study)), *shuffled]))


def is_nested(study: Study, label: str, selection: str) -> bool:
    """Whether the regions of growing pools only lose units, because a unit must qualify for all prompts."""
    own = own_selection(study.methods[label].module, selection)
    return own is not None and own["intersects"]


def _orders(study: Study) -> list[tuple[str, ...]]:
    """Distinct random orders of the identification sets, drawn with the config's seed."""
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


def block_pairs(study: Study, label: str, selection: str) -> list[Blocks]:
    """Every pair of blocks of prompts whose regions are compared; empty if ``sample_sizes: sizes`` is empty.

    For a method (by its label) whose floor needs shuffles, also pairs of first blocks with shuffled statistics, seed 1.
    """
    most, sets = study.samples["identify"], sorted(study.identification)
    pairs = []
    for n in sorted(study.sample_sizes["sizes"]):
        blocks = range(1, min(study.sample_sizes["blocks"], most // n) + 1)
        name = {(d, i): d if n == most else str(Part(d, None, n, i)) for d in sets for i in blocks}
        pairs += [Blocks(n, "sets", name[a, i], name[b, i]) for i in blocks for a, b in combinations(sets, 2)]
        pairs += [
            Blocks(n, "blocks", name[d, i], name[d, j]) for d in sets for i, j in combinations(blocks, 2)
        ]
        if _has_shuffles(study, label):
            first = [_shuffled(name[d, 1], shuffle_kind(selection)) for d in sets]
            pairs += [Blocks(n, "shuffled", a, b) for a, b in combinations(first, 2)]
    return pairs


def core_groups(study: Study, label: str, selection: str) -> list[Group]:
    """The groups of regions of a cell that cores are computed of; empty if ``regroupings`` is 0.

    A data-free method (by its label) has the sets only, because its regions are the same for all prompts.
    """
    if not study.regroupings:
        return []
    sets, kind = sorted(study.identification), shuffle_kind(selection)
    groups = [Group("sets", 0, sets)]
    if _has_shuffles(study, label):
        groups += [
            Group("shuffled", seed, [f"{name}~{seed}{kind}" for name in sets])
            for seed in shuffle_seeds(study)
        ]
    if not study.is_data_free(label):
        draws = range(1, study.regroupings + 1)
        groups += [Group("regrouped", draw, regrouped(sets, draw, block_size(study))) for draw in draws]
    return groups


def regrouped(sets: list[str], draw: int, size: int) -> list[str]:
    """As many names as sets; each pools one block of ``size`` prompts of every set, and each block is in one name.

    In the first draw, name i has the i-th block of all sets. In draw r, the blocks of the j-th set have moved on by
    j (r - 1), so that as many draws differ as there are sets.
    """
    n = len(sets)
    return [
        str(
            Name(
                tuple(
                    Part(name, size=size, block=(i + j * (draw - 1)) % n + 1) for j, name in enumerate(sets)
                )
            )
        )
        for i in range(n)
    ]


def block_size(study: Study) -> int:
    """Prompts that each set gives to a regrouped name, so that it has as many as a set."""
    return study.samples["identify"] // len(study.identification)


def core_names(study: Study, label: str, selection: str) -> list[str]:
    """The names in the groups of a cell, each once."""
    return list(dict.fromkeys(name for group in core_groups(study, label, selection) for name in group.names))


def crossed_pairs(study: Study) -> list[Crossed]:
    """Every identification set with its prompts, and with its responses, crossed with those of each other set."""
    if not study.crossed:
        return []
    sets = permutations(sorted(study.identification), 2)
    return [
        pair
        for a, b in sets
        for pair in (
            Crossed("prompts", a, str(Part(a, responses=b))),
            Crossed("responses", a, str(Part(b, responses=a))),
        )
    ]


def permuted_pools(study: Study, label: str, selection: str) -> list[str]:
    """The pools of two identification sets that are split at random for a method and selection; may be empty."""
    asked = any(cell["selection"] == selection for cell in permuted_cells(study, label))
    return [pool(*pair) for pair in combinations(sorted(study.identification), 2)] if asked else []


def permuted_cells(study: Study, label: str) -> list[dict[str, str]]:
    """Selection and refinement of the cells of a method that have a label permutation test.

    These are the cells whose units go by rank. A method's own selection can need a job of its own, and scores that
    depend on no prompt are the same for every split.
    """
    if not study.label_permutations or study.is_data_free(label):
        return []
    backbone = next(iter(study.backbones))
    found = dict.fromkeys(
        (cell.selection, cell.refinement)
        for cell in cells(study)
        if (cell.backbone, cell.method) == (backbone, label) and parse_selection(cell.selection)
    )
    return [dict(zip(("selection", "refinement"), cell, strict=True)) for cell in found]


def permuted_refinements(study: Study, label: str) -> list[dict[str, str]]:
    """The cells of `permuted_cells` that subtract a region, with the set it belongs to as ``utility``."""
    return [
        {**cell, "utility": subtracted(cell["refinement"])}
        for cell in permuted_cells(study, label)
        if subtracted(cell["refinement"])
    ]


def paired_names(pairs: list[Step] | list[Blocks] | list[Crossed]) -> list[str]:
    """The names that occur in the pairs, each once."""
    return list(dict.fromkeys(name for pair in pairs for name in (pair.a, pair.b)))
