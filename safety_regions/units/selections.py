"""The language of selections: which units of a score table become a region.

==========================  ==============================================================================
``row-0.05``                the best 5 % of each row; also ``matrix-``, ``layer-``, ``global-``
``common-0.2[-0.9]``        neurons in the top 20 % of their module for every prompt (or for 90 %)
``above-0.01[-0.9]``        neurons whose importance reaches 0.01 for every prompt (or for 90 %)
``range``, ``gap``          layers, as the method itself found them
==========================  ==============================================================================
"""

import re
from typing import NamedTuple

from safety_regions.methods.safeneuron.selection import FRACTIONS, RULES

# Scopes in which the units of each granularity can be ranked against each other.
SCOPES = {
    "weight": ("row", "matrix", "layer", "global"),
    "neuron": ("matrix", "layer", "global"),
    "layer": ("global",),
}
# Selections that the method itself finds, without a fraction: SafeLayer's ranges of layers.
FOUND = {"layer": ("range", "gap")}
KEPT = {
    "weight": {"row": 0.05, "matrix": 0.05},
    "neuron": dict.fromkeys(SCOPES["neuron"], 1.0),
    "layer": {"global": 1.0},
}
NUMBER = r"[0-9]+(?:\.[0-9]+)?"
# Selections of neurons by agreement of the prompts: rule-threshold or rule-threshold-presence.
AGREED = rf"({'|'.join(RULES)})-({NUMBER}|{'|'.join(FRACTIONS)})(?:-({NUMBER}))?"


class Selection(NamedTuple):
    scope: str
    fraction: float


class Agreement(NamedTuple):
    """Neurons that a fraction (``presence``) of the prompts agree on."""

    rule: str
    threshold: float | str
    presence: float


def parse_selection(text: str) -> Selection | None:
    """``row-0.05`` as scope and fraction, or None where the text has another form."""
    match = re.fullmatch(rf"(row|matrix|layer|global)-({NUMBER})", text)
    return Selection(match[1], float(match[2])) if match else None


def parse_agreement(text: str) -> Agreement | None:
    """``common-0.2`` or ``above-0.01-0.9`` as rule, threshold and presence (1 where left out), or None."""
    match = re.fullmatch(AGREED, text)
    if not match or (match[1] == "above" and match[2] in FRACTIONS):
        return None
    return Agreement(match[1], match[2] if match[2] in FRACTIONS else float(match[2]), float(match[3] or 1))


def is_range(text: str) -> bool:
    """Whether a selection keeps an unbroken range of layers."""
    return text in FOUND["layer"]
