"""Which prompts find a region, which judge it, and the halves of both: decided by ids and a seed."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa


class Place(NamedTuple):
    """Where one prompt stands: its number in the given sequence, its split, its half (1 or 2)."""

    number: int
    split: str
    half: int


def split_prompts(prompt_ids: Sequence[str], seed: int, evaluate_fraction: float) -> list[Place]:
    """The places of all prompts, in the order of sha256("{seed}/{prompt_id}").

    The first round(evaluate_fraction * n) are ``evaluate`` and the others ``identify``; within each split the
    halves go 1, 2, 1, 2, ... in that order, so they are balanced in every prefix: the first n prompts of
    a split are a random sample of it, and their halves differ by at most one prompt. A prompt added to the
    set changes no order among the others, and prompts of other sets change nothing.

    Args:
        prompt_ids: unique ids of one dataset, in any order.
        seed: of the study; another seed is another split.
        evaluate_fraction: fraction 0-1 of the prompts kept away from the search for a region.
    """
    order = sorted(
        range(len(prompt_ids)), key=lambda i: hashlib.sha256(f"{seed}/{prompt_ids[i]}".encode()).digest()
    )
    evaluate = round(evaluate_fraction * len(order))
    return [
        Place(number, split, 1 + rank % 2)
        for split, numbers in (("evaluate", order[:evaluate]), ("identify", order[evaluate:]))
        for rank, number in enumerate(numbers)
    ]


def first_of_splits(prompts: pa.Table, **counts: int) -> pa.Table:
    """The first prompts of each split named (``identify=100, evaluate=30``), in the table's order.

    A prefix of a split is a random sample of it (see `split_prompts`); fewer are returned where it has fewer.
    """
    split = prompts["split"].to_pylist()
    left = dict(counts)
    wanted = []
    for which in split:
        wanted.append(left.get(which, 0) > 0)
        left[which] = left.get(which, 0) - 1
    return prompts.filter(pa.array(wanted, pa.bool_()))
