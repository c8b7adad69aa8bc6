"""Split prompts into those that identify a region and those that evaluate it, and both into halves, by a seed."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa


class Place(NamedTuple):
    """The place of one prompt: its index in the given sequence, its split, and its half (1 or 2)."""

    number: int
    split: str
    half: int


def split_prompts(prompt_ids: Sequence[str], seed: int, evaluate_fraction: float) -> list[Place]:
    """The places of all prompts, in the order of sha256("{seed}/{prompt_id}").

    The first round(evaluate_fraction * n) prompts are ``evaluate`` and the others ``identify``. Within each split the
    halves alternate, 1, 2, 1, 2, ..., so they are balanced in every prefix: the first n prompts of a split are a
    random sample of it, and the sizes of their halves differ by at most one. Adding a prompt to the dataset does not
    change the order of the others, and other datasets have no effect.

    Args:
        prompt_ids: unique ids of one dataset, in any order.
        seed: of the study; each seed gives another split.
        evaluate_fraction: fraction 0-1 of the prompts that are held out from the search for a region.
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
    """The first prompts of each named split (``identify=100, evaluate=30``), in the table's order.

    A prefix of a split is a random sample of it (see `split_prompts`). A split with fewer prompts is returned whole.
    """
    split = prompts["split"].to_pylist()
    left = dict(counts)
    wanted = []
    for which in split:
        wanted.append(left.get(which, 0) > 0)
        left[which] = left.get(which, 0) - 1
    return prompts.filter(pa.array(wanted, pa.bool_()))
