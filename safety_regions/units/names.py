"""The small language of names that stands wherever a dataset name can stand.

==========  ====================================================================
``a``       the dataset a
``a.1``     its first half, ``a.2`` the second (how much do halves agree?)
``a@25``    its first 25 prompts, ``a@25x2`` the next 25 (are there enough?)
``a+b``     the prompts of a and b pooled (does overlap converge?)
``a~7``     evidence shuffled inside each matrix by seed 7, weights kept (floor)
==========  ====================================================================

Halves bind tightest, then blocks, then pooling, then the shuffle: ``a.1+b@50~3`` is the pool of half a.1 and
the first 50 prompts of b, shuffled.

A name has one spelling, since files are called by it: parts in sorted order, numbers without leading zeros, no ``x1``.
"""

import re
from itertools import pairwise
from typing import NamedTuple

from safety_regions.errors import StudyError, explain

DATASET = r"[a-z0-9][a-z0-9-]*"
NUMBER = "[1-9][0-9]*"
PART = rf"{DATASET}(?:\.[12])?(?:@{NUMBER}(?:x{NUMBER})?)?"
NAME = rf"{PART}(?:\+{PART})*(?:~[0-9]+)?"
# The most names whose regions are compared with each other at once: membership patterns have a bit for each.
MOST_NAMES = 16


class Part(NamedTuple):
    """One dataset of a name.

    Attributes:
        dataset: its name.
        half: 1, 2 or None for both.
        size: prompts of a block; None for as many as the study takes.
        block: which block of that size, 1 for the first.
    """

    dataset: str
    half: int | None = None
    size: int | None = None
    block: int = 1

    def __str__(self) -> str:
        half = f".{self.half}" if self.half else ""
        size = f"@{self.size}" if self.size else ""
        return self.dataset + half + size + (f"x{self.block}" if self.block > 1 else "")


class Name(NamedTuple):
    """A parsed name; ``shuffle`` is the seed of the evidence shuffle or None."""

    parts: tuple[Part, ...]
    shuffle: int | None = None

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets that must have been answered, sorted, each once."""
        return tuple(sorted({part.dataset for part in self.parts}))

    def __str__(self) -> str:
        pooled = "+".join(map(str, self.parts))
        return pooled if self.shuffle is None else f"{pooled}~{self.shuffle}"


def parse_name(text: str) -> Name:
    """Parse a name.

    Raises:
        StudyError: the text is no name or another spelling of one (``b+a``), or pools a dataset twice other than as its
            two halves.
    """
    if not re.fullmatch(NAME, text):
        known = "a, a.1, a.2, a@25, a@25x2, a+b or a~7 (lower case, digits, -)"
        raise StudyError(explain(f"name '{text}'", "an unknown form", known))
    pooled, _, seed = text.partition("~")
    parts = sorted(map(_parse_part, pooled.split("+")), key=lambda part: (part.dataset, part.half or 0))
    for part, after in pairwise(parts):
        if part.dataset == after.dataset and (part.half, after.half) != (1, 2):
            raise StudyError(explain(f"name '{text}'", f"'{part.dataset}' pooled twice", "each prompt once"))
    name = Name(tuple(parts), int(seed) if seed else None)
    if str(name) != text:
        raise StudyError(explain(f"name '{text}'", "another spelling", f"'{name}'"))
    return name


def _parse_part(text: str) -> Part:
    place, _, block = text.partition("@")
    dataset, _, half = place.partition(".")
    size, _, number = block.partition("x")
    return Part(dataset, int(half) if half else None, int(size) if size else None, int(number or 1))


def pool(*datasets: str, size: int | None = None) -> str:
    """The name of several datasets pooled, with ``size`` prompts of each; of one dataset, that dataset."""
    return str(Name(tuple(Part(dataset, size=size) for dataset in sorted(datasets))))
