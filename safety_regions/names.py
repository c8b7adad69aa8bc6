"""The small language of names that stands wherever a dataset name can stand.

=========  ==================================================================
``a``      the dataset a
``a.1``    its first half, ``a.2`` the second (how much do halves agree?)
``a+b``    the prompts of a and b pooled (does overlap converge?)
``a~7``    evidence shuffled inside each matrix by seed 7, weights kept (floor)
=========  ==================================================================

Halves bind tightest, then pooling, then the shuffle: ``a.1+b~3`` is the pool of half a.1 and b, shuffled.
"""

import re
from typing import NamedTuple

from safety_regions.errors import StudyError, explain

DATASET = r"[a-z0-9][a-z0-9-]*"
PART = rf"{DATASET}(?:\.[12])?"
NAME = rf"{PART}(?:\+{PART})*(?:~[0-9]+)?"


class Part(NamedTuple):
    """One dataset of a name; ``half`` is 1, 2 or None for the whole set."""

    dataset: str
    half: int | None = None


class Name(NamedTuple):
    """A parsed name; ``shuffle`` is the seed of the evidence shuffle or None."""

    parts: tuple[Part, ...]
    shuffle: int | None = None

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets that must have been answered, sorted, each once."""
        return tuple(sorted({part.dataset for part in self.parts}))

    def __str__(self) -> str:
        pooled = "+".join(p.dataset + (f".{p.half}" if p.half else "") for p in self.parts)
        return pooled if self.shuffle is None else f"{pooled}~{self.shuffle}"


def parse_name(text: str) -> Name:
    """Parse a name; pooled parts are put in sorted order, so ``b+a`` and ``a+b`` are one name.

    Raises:
        StudyError: the text is no name, or pools the same prompts twice.
    """
    if not re.fullmatch(NAME, text):
        raise StudyError(
            explain(f"name '{text}'", "an unknown form", "a, a.1, a.2, a+b or a~7 (lower case, digits, -)")
        )
    pooled, _, seed = text.partition("~")
    parts = []
    for part in pooled.split("+"):
        dataset, _, half = part.partition(".")
        parts.append(Part(dataset, int(half) if half else None))
    for part in parts:
        if parts.count(part) > 1 or (part.half and Part(part.dataset) in parts):
            raise StudyError(explain(f"name '{text}'", f"'{part.dataset}' pooled twice", "each prompt once"))
    parts.sort(key=lambda part: (part.dataset, part.half or 0))
    return Name(tuple(parts), int(seed) if seed else None)
