"""The syntax of names: expressions for sets of prompts, allowed wherever a dataset name is.

==========  =========================================================================================
``a``       the dataset a
``a.1``     the first half of a; ``a.2`` is the second (for split-half reliability, the ceiling)
``a@25``    the first 25 prompts of a; ``a@25x2`` are the next 25 (for the dependence on sample size)
``a^b``     the prompts of a, each with a response to a prompt of b (what does an overlap owe to the responses?)
``a+b``     the pooled prompts of a and b (for convergence)
``a~7``     evidence of a shuffled within each matrix with seed 7 (for the permutation null, the floor)
``a~7r``    the same within each row, for regions whose units are ranked within rows
``a~7m``    the same within each matrix, but row and column sums are kept (for the floor with marginals)
``a~7+b~7`` the pool of a and b after the evidence of each is shuffled by itself (for convergence)
==========  =========================================================================================

Precedence, highest first: responses, halves, blocks, pooling, shuffle. ``a.1+b@50~3`` is the shuffled pool of half a.1
and the first 50 prompts of b.

Names are used as file names, so each has exactly one spelling: sorted parts, no leading zeros, no ``x1``.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from safety_regions.errors import StudyError, explain

DATASET = r"[a-z0-9][a-z0-9-]*"
NUMBER = "[1-9][0-9]*"
PART = rf"{DATASET}(?:\^{DATASET})?(?:\.[12])?(?:@{NUMBER}(?:x{NUMBER})?)?"
SHUFFLES = ("", "r", "m")
"""Kinds of shuffle, as the last letter of a name: within matrices, within rows, and with row and column sums kept."""
SHUFFLE = "~[0-9]+[rm]?"
NAME = rf"{PART}(?:(?:\+{PART})*(?:{SHUFFLE})?|{SHUFFLE}(?:\+{PART}{SHUFFLE})+)"
# Maximum number of names that can be compared at once: a membership pattern has one bit per name.
MOST_NAMES = 16
LONGEST_NAME = 220
"""Characters of a name: a file system takes 255, of which endings and temporary files need some."""


class Part(NamedTuple):
    """One dataset within a name.

    Attributes:
        dataset: name of the dataset.
        half: 1, 2 or None for both halves.
        size: number of prompts in a block; None for the study's default number.
        block: number of the block of that size, 1-based.
        responses: dataset whose responses the prompts get; None for their own.
    """

    dataset: str
    half: int | None = None
    size: int | None = None
    block: int = 1
    responses: str | None = None

    def __str__(self) -> str:
        words = f"^{self.responses}" if self.responses else ""
        half = f".{self.half}" if self.half else ""
        size = f"@{self.size}" if self.size else ""
        return self.dataset + words + half + size + (f"x{self.block}" if self.block > 1 else "")


class Name(NamedTuple):
    """A parsed name; ``shuffle`` is the seed of the evidence shuffle, or None, and ``kind`` one of `SHUFFLES`.

    ``apart``: the evidence of each part is shuffled by itself before it is pooled, not the pooled evidence.
    """

    parts: tuple[Part, ...]
    shuffle: int | None = None
    kind: str = ""
    apart: bool = False

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets in the name, sorted, each once, those included that only responses come from."""
        found = {name for part in self.parts for name in (part.dataset, part.responses) if name}
        return tuple(sorted(found))

    def __str__(self) -> str:
        shuffle = "" if self.shuffle is None else f"~{self.shuffle}{self.kind}"
        return (f"{shuffle}+" if self.apart else "+").join(map(str, self.parts)) + shuffle


def parse_name(text: str) -> Name:
    """Parse a name.

    Raises:
        StudyError: the text is not a name, is not the standard spelling of one (``b+a``), pools a dataset twice,
            except as its two halves, or shuffles the members of a pool with different seeds or kinds.
    """
    if not re.fullmatch(NAME, text):
        known = "a form such as a, a.1, a@25x2, a^b, a+b, a~7, a~7r, a~7m or a~7+b~7 (lower case, digits, -)"
        raise StudyError(explain(f"name '{text}'", "an unknown form", known))
    members = [member.partition("~") for member in text.split("+")]
    apart, seed = len(members) > 1 and bool(members[0][1]), members[-1][-1]
    if apart and any(member[-1] != seed for member in members):
        raise StudyError(
            explain(f"name '{text}'", "members with different shuffles", f"'~{seed}' after each")
        )
    parts = sorted(
        (_parse_part(pooled) for pooled, _, _ in members), key=lambda part: (part.dataset, part.half or 0)
    )
    for part, after in pairwise(parts):
        if part.dataset == after.dataset and (part.half, after.half) != (1, 2):
            raise StudyError(explain(f"name '{text}'", f"'{part.dataset}' pooled twice", "each dataset once"))
    number, kind = (seed[:-1], seed[-1]) if seed.endswith(SHUFFLES[1:]) else (seed, "")
    name = Name(tuple(parts), int(number) if number else None, kind, apart)
    if str(name) != text:
        raise StudyError(explain(f"name '{text}'", "a non-standard spelling", f"'{name}'"))
    return name


def with_same_prompts(names: Iterable[str]) -> list[list[Name]]:
    """The parsed names in groups that have the same prompts and differ only in their shuffle.

    A pool of shuffled members (``a~1+b~1``) is alone: each of its members is shuffled by itself.
    """
    groups: dict[Name, list[Name]] = {}
    for name in map(parse_name, names):
        groups.setdefault(name if name.apart else Name(name.parts), []).append(name)
    return list(groups.values())


def _parse_part(text: str) -> Part:
    place, _, block = text.partition("@")
    sets, _, half = place.partition(".")
    dataset, _, responses = sets.partition("^")
    size, _, number = block.partition("x")
    words = responses if responses not in ("", dataset) else None
    return Part(dataset, int(half) if half else None, int(size) if size else None, int(number or 1), words)


def pool(*datasets: str, size: int | None = None) -> str:
    """The name of the pool of some datasets, with ``size`` prompts of each; for one dataset, the dataset itself."""
    return str(Name(tuple(Part(dataset, size=size) for dataset in sorted(datasets))))
