"""Selections by rank, e.g. ``row-0.05`` (the best 5 % of each row); also ``matrix-``, ``layer-`` and ``global-``.

A method can define additional selections (CARD key ``own_selections``).
"""

import re
from typing import NamedTuple

NUMBER = r"[0-9]+(?:\.[0-9]+)?"
RANKED = rf"(?:row|matrix|layer|global)-{NUMBER}"


class Selection(NamedTuple):
    """A scope and the selected fraction (0-1] of its units."""

    scope: str
    fraction: float


def parse_selection(text: str) -> Selection | None:
    """Parse ``row-0.05`` into scope and fraction; None if the text has another form."""
    if not re.fullmatch(RANKED, text):
        return None
    scope, _, fraction = text.partition("-")
    return Selection(scope, float(fraction))
