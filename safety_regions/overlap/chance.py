"""IoU expected by chance: independent regions of the same sizes, drawn at random from the available units.

Sizes are fixed where the scope fixes them: in each matrix for scope row and matrix, in each layer for scope layer,
in the whole model for scope global. (A raw region of scope row has the same size in each row, so the
matrix gives the same expectation. A refined one has unequal rows, and is treated as one of scope matrix.)
A region of n units drawn from a available units contains each of them with probability n / a, so, summed over
addresses s with a_s available units,

    E[intersection] = sum_s a_s prod_d p_ds        E[union] = sum_s a_s (1 - prod_d (1 - p_ds))

Where units are many, chance is the ratio E[intersection] / E[union]. It differs from E[IoU] by about the ratio divided
by the expected union. Where that could change the third decimal, chance is E[IoU] itself:

- for two regions by the hypergeometric law: in each stratum (where sizes are fixed) they share j units with probability
  C(n, j) C(a - n, m - j) / C(a, m), and the union follows from j;
- for more regions, or for a group of addresses that is only a part of a stratum, to second order in the deviations of
  intersection and union, whose exact variances and covariance are known; and for a handful of units, where this is not
  enough, as the mean of `DRAWS` random draws. Draws with an empty union, whose IoU is undefined, are left out.
"""

import zlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from safety_regions.errors import StudyError, unknown
from safety_regions.units.addresses import STRATA

DRAWS = 4_000
TOLERANCE = 5e-4
"""An error of chance that is not worth a more exact computation. The errors of the ratio and of the second order are
taken to be at most 3 ratio / union and 10 ratio / union^2; the tests check both."""
# Largest population of numpy's hypergeometric draws.
_POPULATION = 10**9


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
    stratum = strata(scope, addresses)

    def in_stratum(units: np.ndarray) -> np.ndarray:
        """The units of all addresses in the stratum of each."""
        return np.bincount(stratum, weights=units)[stratum]

    return np.array([in_stratum(units) for units in sizes]) / np.maximum(in_stratum(available), 1)


def strata(scope: str, addresses: Sequence[str]) -> np.ndarray:
    """Return the number of each address's stratum, in which the size of a region is held fixed."""
    return np.unique([STRATA[scope](where) for where in addresses], return_inverse=True)[1]


def expect(density: np.ndarray, available: np.ndarray) -> Expected:
    """Return the expected intersection and union of independent regions of these densities (names, addresses)."""
    return Expected(available * density.prod(0), available * (1 - (1 - density).prod(0)))


def expected_iou(
    scope: str,
    addresses: Sequence[str],
    sizes: np.ndarray,
    available: np.ndarray,
    teams: Sequence[Sequence[int]],
    inside: np.ndarray,
) -> np.ndarray:
    """Return the IoU expected by chance of each combination in each group: float64, (combinations, groups).

    Args:
        scope, addresses, sizes, available: see `densities`.
        teams: the combinations, as indices of names.
        inside: which addresses belong to each group, bool, (groups, addresses).
    """
    density = densities(scope, addresses, sizes, available)
    expected = [expect(density[list(team)], available) for team in teams]
    intersection, union = (
        np.array(values).reshape(len(teams), len(available)) @ inside.T
        for values in ([e.intersection for e in expected], [e.union for e in expected])
    )
    chance = np.divide(intersection, union, out=np.full(union.shape, np.nan), where=union > 0)
    few = (union > 0) & (3 * np.nan_to_num(chance) > TOLERANCE * union)
    if few.any():
        numbers = strata(scope, addresses)
        groups = [Strata.of(numbers, sizes, available, members) for members in inside]
        for t, g in np.argwhere(few):
            chance[t, g] = groups[g].expected_iou(list(teams[t]), float(chance[t, g]), float(union[t, g]))
    return chance


class Strata(NamedTuple):
    """The strata that a group of addresses meets: units of each region, of the stratum, and of its part in the group.

    ``sizes`` is (names, strata), ``whole`` and ``part`` are (strata,).
    """

    sizes: np.ndarray
    whole: np.ndarray
    part: np.ndarray

    @classmethod
    def of(
        cls, stratum: np.ndarray, sizes: np.ndarray, available: np.ndarray, members: np.ndarray
    ) -> "Strata":
        met = np.unique(stratum[members])
        whole = np.bincount(stratum, weights=available)[met]
        part = np.bincount(stratum, weights=available * members)[met]
        held = np.array([np.bincount(stratum, weights=units)[met] for units in sizes])
        return cls(*(values.round().astype(np.int64) for values in (held, whole, part)))

    def expected_iou(self, team: list[int], ratio: float, union: float) -> float:
        """Return E[IoU] of the regions of these names; ``ratio`` and ``union`` are their expectations."""
        is_pair = len(team) == 2 and (self.whole == self.part).all()
        if not is_pair and 10 * ratio <= TOLERANCE * union**2:
            return ratio + self._second_order(self.sizes[team], ratio, union)
        held = np.sort(self.sizes[team], axis=0).T  # the law does not depend on the order of the regions
        drawn = tuple(zip(map(tuple, held.tolist()), self.whole.tolist(), self.part.tolist(), strict=True))
        return pair_iou(drawn) if is_pair else drawn_iou(drawn)

    def _second_order(self, sizes: np.ndarray, ratio: float, union: float) -> float:
        """Return (ratio Var(union) - Cov(intersection, union)) / union^2, the second-order term of E[I / U].

        Moments are sums over strata; within one, over pairs of different units: both in every region, both in none,
        or one in every and the other in no region.
        """
        whole, part = self.whole, self.part
        taken, left = sizes / whole, 1 - sizes / whole
        rest = np.maximum(whole - 1, 1)
        every, none = taken.prod(0), left.prod(0)
        both_none = (left * (whole - sizes - 1).clip(0) / rest).prod(0)
        one_each = (taken * (whole - sizes) / rest).prod(0)
        var_union = part * none + part * (part - 1) * both_none - (part * none) ** 2
        cov_with_none = part * (part - 1) * one_each - part**2 * every * none
        return float((ratio * var_union.sum() + cov_with_none.sum()) / union**2)


# Per stratum: the sizes of the regions, its available units, and how many of these are in the group.
Sizes = tuple[tuple[tuple[int, ...], int, int], ...]


@cache
def pair_iou(strata: Sizes) -> float:
    """Return E[IoU] of two regions over whole strata, by the hypergeometric law of the units that they share."""
    law, total = np.ones(1), 0
    for (n, m), whole, _ in strata:
        law, total = np.convolve(law, shared_law(whole, n, m)), total + n + m
    shared = np.arange(len(law))
    return float(law @ (shared / (total - shared)))


def shared_law(units: int, n: int, m: int) -> np.ndarray:
    """Return the probability that random sets of ``n`` and ``m`` of these units share 0, 1, ... min(n, m) units."""
    j = np.arange(max(0, n + m - units), min(n, m) + 1)

    def choose(total: int, part: np.ndarray | int) -> np.ndarray:
        return gammaln(total + 1) - gammaln(np.asarray(part) + 1) - gammaln(total - np.asarray(part) + 1)

    law = np.zeros(min(n, m) + 1)
    law[j] = np.exp(choose(n, j) + choose(units - n, m - j) - choose(units, m))
    return law / law.sum()


@cache
def drawn_iou(strata: Sizes) -> float:
    """Return the mean IoU of random regions over `DRAWS` draws with a fixed seed; NaN if every union is empty."""
    rng = np.random.default_rng(zlib.crc32(repr(strata).encode()))
    shared, covered = np.zeros(DRAWS), np.zeros(DRAWS)
    for sizes, whole, part in strata:
        both, either = _draw(rng, sizes, whole, part)
        shared, covered = shared + both, covered + either
    return float((shared[covered > 0] / covered[covered > 0]).mean()) if covered.any() else np.nan


def _draw(
    rng: np.random.Generator, sizes: Sequence[int], whole: int, part: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw regions of these sizes; return the units of ``part`` in all of them and in any of them, (DRAWS,) each."""
    both = either = None
    for n in sizes:
        inside = _inside(rng, n, whole, part)
        if both is None:
            both = either = inside
            continue
        common = _draws(rng, both, part - both, inside)
        # Of the region's other units, those that no earlier region has.
        either = either + _draws(rng, part - either, either - both, inside - common)
        both = common
    return both, either


def _inside(rng: np.random.Generator, n: int, whole: int, part: int) -> np.ndarray:
    """How many of ``n`` units drawn from ``whole`` are in the part: int64, (DRAWS,)."""
    every = np.full(DRAWS, n)
    return every if part == whole else _draws(rng, np.full(DRAWS, part), whole - part, every)


def _draws(rng: np.random.Generator, good: np.ndarray, bad: np.ndarray | int, n: np.ndarray) -> np.ndarray:
    """How many good units are among ``n`` drawn from the good and the bad ones, without replacement."""
    if np.max(good + bad) < _POPULATION:
        return rng.hypergeometric(good, bad, n)
    # So many units that a draw with replacement has the same law to nine digits.
    return np.minimum(rng.binomial(n, good / np.maximum(good + bad, 1)), good)


def ratio_or_null(part: float, whole: float) -> float | None:
    """Part divided by whole; None, which a table stores as null, if the whole is 0."""
    return part / whole if whole else None
