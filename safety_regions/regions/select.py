"""Selection: the region is the best fraction of every scope unit.

A scope unit is a set of units that are ranked against each other: a row of a matrix, a matrix (the neurons of one
projection in one layer count as one), a layer, or the whole model. From a scope unit with n units, the
int(fraction * n) best are selected: score descending, ties by flat index ascending (C order within an address;
addresses by layer, then q k v o gate up down). Wei et al. 2024 (arXiv 2402.05162) rank by row in their paper, and
by flattened matrix in the set difference of their code.

If the method's option ``positive`` is true, units whose score is not positive are then left out. A scope unit may so
get fewer units, or none.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from safety_regions.errors import StudyError, explain, unknown
from safety_regions.formats.files import REMEDY
from safety_regions.formats.region import Region
from safety_regions.formats.score_file import ScoreFile
from safety_regions.formats.subspaces import AnyRegion, Subspaces
from safety_regions.regions.subspaces import first_ranks
from safety_regions.units.addresses import parse_address
from safety_regions.units.fractions import scope_count

HALF = 1 << 16


class Chosen(NamedTuple):
    """The selected units of one address, as flat indices (int64) in no particular order."""

    address: str
    units: np.ndarray


def select_region(
    scores_path: str | Path, scope: str, fraction: float, allow_empty: bool = False
) -> AnyRegion:
    """Select the best ``fraction`` of every scope unit as a raw region; `Subspaces` if the units are ranks.

    Args:
        scores_path: a score table (weights, neurons, heads or layers) that stores at least this fraction of the scope.
        scope: row (of weights only), matrix, layer or global.
        fraction: 0-1.
        allow_empty: accept scope units so small that the fraction selects none of their units.

    Raises:
        StudyError: the scope or the fraction was not stored, a scope unit would be empty, there are fewer directions
            than ranks asked for, or the table is damaged: scores that are not finite or too few, units outside their
            address or listed twice.
    """
    file = ScoreFile(scores_path)
    _check_kept(file, scope, fraction)
    count = partial(_count, file, fraction, allow_empty)
    metadata = {**file.metadata, "scope": scope, "fraction": fraction, "refinement": "raw"}
    if file.granularity.subspaces:
        ranks = {where: shape[0] for where, shape in file.shapes.items()}
        return Subspaces.raw(first_ranks(file, count), ranks, metadata)
    masks = {where: _pack(file, where, units) for where, units in SELECTORS[scope](file, count)}
    return Region(masks, file.shapes, metadata, {where: math.prod(s) for where, s in file.shapes.items()})


def _check_kept(file: ScoreFile, scope: str, fraction: float) -> None:
    if scope not in SELECTORS:
        raise StudyError(unknown(file.path, "scope", scope, SELECTORS))
    if not 0 <= fraction <= file.kept.get(scope, -1):
        found = f"kept fractions {file.kept}"
        hint = f"`kept: {{{scope}: {fraction}}}` at the top level of the config"
        raise StudyError(explain(file.path, found, f"at least {fraction} of scope {scope}", hint))


def _count(file: ScoreFile, fraction: float, allow_empty: bool, what: str, n: int) -> int:
    k = scope_count(fraction, n)
    if k == 0 and not allow_empty:
        hint = "a larger fraction, a wider scope, or `allow_empty: true`"
        raise StudyError(
            explain(f"{file.path}: {what}", f"fraction {fraction} of {n} units", "1 or more", hint)
        )
    return k


def _pack(file: ScoreFile, where: str, units: np.ndarray) -> np.ndarray:
    flags = np.zeros(math.prod(file.shapes[where]), bool)
    flags[units] = True
    if np.count_nonzero(flags) != units.size:
        raise StudyError(explain(f"{file.path}: {where}", "units listed twice", "each unit once", REMEDY))
    if file.only_positive:
        flags[file.units(where)[file.scores(where) <= 0]] = False
    return np.packbits(flags)


def _check_enough(file: ScoreFile, what: str, found: int, k: int) -> None:
    if found < k:
        raise StudyError(explain(f"{file.path}: {what}", f"{found} scores", f"the best {k} or more", REMEDY))


def _by_row(file: ScoreFile, count: Callable[[str, int], int]) -> Iterator[Chosen]:
    for where, shape in file.shapes.items():
        if len(shape) != 2:
            raise StudyError(explain(f"{file.path}: {where}", "units without rows", "weights for scope row"))
        yield Chosen(where, _best_of_rows(file, where, count(f"{where}: each row", shape[1])))


def _best_of_rows(file: ScoreFile, where: str, k: int) -> np.ndarray:
    """Return the k best units of each row, for all rows at once: flat indices."""
    n_rows, n_columns = file.shapes[where]
    units = file.units(where)
    row = units // n_columns
    kept = np.bincount(row, minlength=n_rows)
    _check_enough(file, f"{where}: row {kept.argmin()}", kept.min(), k)
    if k == 0:
        return units[:0]
    order = (row.astype(np.uint64) << 32) | ~_key(file.scores(where))  # sorts by row, then best first
    worst = np.sort(order)[np.cumsum(kept) - kept + k - 1][row]
    above = order < worst
    missing = k - np.bincount(row[above], minlength=n_rows)
    ties = np.sort(units[order == worst])
    row_of_tie = ties // n_columns
    place = np.arange(ties.size) - np.searchsorted(row_of_tie, row_of_tie)
    return np.concatenate([units[above], ties[place < missing[row_of_tie]]])


def _by_group(
    file: ScoreFile, count: Callable[[str, int], int], group_of: Callable[[str], str]
) -> Iterator[Chosen]:
    groups: dict[str, list[str]] = {}
    for where in file.shapes:
        groups.setdefault(group_of(where), []).append(where)
    for group, addresses in groups.items():
        n = sum(math.prod(file.shapes[where]) for where in addresses)
        yield from _best_of_group(file, group, addresses, count(group, n))


def _best_of_group(file: ScoreFile, group: str, addresses: Sequence[str], k: int) -> Iterator[Chosen]:
    """Yield the k best units of several addresses together, with one address in memory at a time."""
    worst, missing = _kth_best(file, group, addresses, k)
    for where in addresses:
        units, key = file.units(where), _key(file.scores(where)).astype(np.int64)
        ties = np.sort(units[key == worst])[:missing]
        missing -= ties.size
        yield Chosen(where, np.concatenate([units[key > worst], ties]))


def _kth_best(file: ScoreFile, group: str, addresses: Sequence[str], k: int) -> tuple[int, int]:
    """Return the key of the k-th best score, and how many scores equal to it are among the k best.

    Exact, from two histograms over the scores' bits instead of a sort of all scores (3e8 in the region of an 8B
    model): the upper half of the key finds the bucket of the k-th best score, the lower half its place in the bucket.
    """
    keys = partial(map, lambda where: _key(file.scores(where)), addresses)
    upper = sum(np.bincount(key >> 16, minlength=HALF) for key in keys())
    _check_enough(file, group, int(upper.sum()), k)
    bucket, rest = _kth_from_top(upper, k)
    lower = sum(np.bincount(key[key >> 16 == bucket] & (HALF - 1), minlength=HALF) for key in keys())
    place, missing = _kth_from_top(lower, rest)
    return bucket * HALF + place, missing


def _kth_from_top(histogram: np.ndarray, k: int) -> tuple[int, int]:
    """Return the bin of the k-th largest entry, and how many entries of that bin are among the k largest."""
    from_top = np.cumsum(histogram[::-1])
    position = int(np.searchsorted(from_top, k))
    above = int(from_top[position - 1]) if position else 0
    return histogram.size - 1 - position, k - above


def _key(scores: np.ndarray) -> np.ndarray:
    """Convert float32 to uint32 with the same order; -0.0 counts as 0.0."""
    bits = (scores + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


# One entry per scope: a function that yields the chosen units of every address, in any order of addresses.
SELECTORS = {
    "row": _by_row,
    "matrix": partial(_by_group, group_of=str),
    "layer": partial(_by_group, group_of=lambda where: f"layer {parse_address(where).layer}"),
    "global": partial(_by_group, group_of=lambda where: "the model"),
}
