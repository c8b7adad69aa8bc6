"""Selections by rank, e.g. ``row-0.05``: the best 5 % of each row; also ``matrix-``, ``layer-`` and ``global-``.

A method can have selections of its own beside these (CARD key ``own_selections``).
"""

import re
from typing import NamedTuple

NUMBER = r"[0-9]+(?:\.[0-9]+)?"
RANKED = rf"(?:row|matrix|layer|global)-{NUMBER}"


class Selection(NamedTuple):
    """A scope, and the fraction (0-1] of its units that is selected."""

    scope: str
    fraction: float


def parse_selection(text: str) -> Selection | None:
    """``row-0.05`` as scope and fraction, or None where the text has another form."""
    if not re.fullmatch(RANKED, text):
        return None
    scope, _, fraction = text.partition("-")
    return Selection(scope, float(fraction))
