"""Overlap expected by chance: independent regions of the same sizes, drawn at random from the available units.

Sizes are fixed where the scope fixes them: in each matrix for scope row and matrix, in each layer for scope layer,
in the whole model for scope global. (A raw region of scope row has the same size in each row, so the
matrix gives the same expectation. A refined one has unequal rows, and is treated as one of scope matrix.)
A region of n units drawn from a available units contains each of them with probability n / a, so, summed over
addresses s with a_s available units,

    E[intersection] = sum_s a_s prod_d p_ds        E[union] = sum_s a_s (1 - prod_d (1 - p_ds))

and chance is E[intersection] / E[union]: the ratio of expectations, which for thousands of units is the expected
IoU to many digits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from safety_regions.errors import StudyError, unknown
from safety_regions.units.addresses import parse_address

# Scope -> the addresses among which a region's size is held fixed, as a label of each address.
STRATA = {
    "row": str,
    "matrix": str,
    "layer": lambda where: parse_address(where).layer,
    "global": lambda where: "",
}


class Expected(NamedTuple):
    """Expected units of an intersection and of a union, at each address: float64, (addresses,)."""

    intersection: np.ndarray
    union: np.ndarray


def densities(scope: str, addresses: Sequence[str], sizes: np.ndarray, available: np.ndarray) -> np.ndarray:
    """Return the probability that a random region contains an available unit: float64, (names, addresses).

    Args:
        scope: row, matrix, layer or global.
        addresses: of the columns.
        sizes: units of each region at each address, (names, addresses).
        available: units that could have been selected at each address, (addresses,).

    Raises:
        StudyError: the scope is unknown.
    """
    if scope not in STRATA:
        raise StudyError(unknown("chance", "scope", scope, STRATA))
    stratum = np.unique([STRATA[scope](where) for where in addresses], return_inverse=True)[1]

    def in_stratum(units: np.ndarray) -> np.ndarray:
        """The units of all addresses in the stratum of each."""
        return np.bincount(stratum, weights=units)[stratum]

    return np.array([in_stratum(units) for units in sizes]) / np.maximum(in_stratum(available), 1)


def expect(density: np.ndarray, available: np.ndarray) -> Expected:
    """Return the expected intersection and union of independent regions of these densities (names, addresses)."""
    return Expected(available * density.prod(0), available * (1 - (1 - density).prod(0)))
