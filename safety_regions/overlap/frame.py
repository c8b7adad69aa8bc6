"""The frame of every IoU: its value with shuffled statistics (floor) and for two halves of one set (ceiling).

=========  =================================================================================================
floor      permutation null: mean IoU of the same sets with the attribution statistics (evidence) shuffled
           (``a~1`` with ``b~1``, ``a~2`` with ``b~2``, ...), that is, the IoU that shared weights alone give.
           Each set has its own shuffle, so shuffled statistics have nothing in common.
half_iou   mean of ``a.1`` with ``b.1`` and ``a.2`` with ``b.2``: the IoU at half the prompts
ceiling    split-half reliability: mean of ``a.1`` with ``a.2`` and ``b.1`` with ``b.2``, the IoU of disjoint
           prompts of one set, with as many prompts as half_iou; for pairs only
=========  =================================================================================================

    normalised = (half_iou - floor) / (ceiling - floor)

is 0 if two sets share only what the weights alone give, and 1 if they share as much as two halves of one set.
A refinement subtracts the same utility region from shuffles and halves as from the set itself.

For whole layers, the floor is not estimated from shuffles, since a few layers have few permutations: it is the exact
expectation over all placements (`placed_iou`), for pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pyarrow as pa

from safety_regions.formats.columns import column, numbers
from safety_regions.overlap.iou import JOIN, compute_overlap, overlap_of_pairs
from safety_regions.overlap.membership import Membership, count_membership
from safety_regions.overlap.placements import NOWHERE, placed_iou
from safety_regions.units.addresses import LAYERS
from safety_regions.units.granularity import GRANULARITIES

FLOOR = ("floor", "floor_low", "floor_high")
QUANTILES = (0.025, 0.975)
HALVES = (".1", ".2")
Paths = Mapping[str, str | Path]


def frame_overlap(
    membership: Membership,
    paths: Paths,
    utility: Sequence[str] = (),
    floors: int = 0,
    halves: bool = False,
    contiguous: bool = False,
) -> pa.Table:
    """Return every IoU of a cell with its chance, floor and ceiling: an `OVERLAP` table.

    Combinations are those of `compute_overlap` for the sets of the membership table, and all pairs that contain a
    utility set.

    Args:
        membership: of the identification sets.
        paths: name -> region file: of every set if there are utility sets, and of its shuffles ``a~1`` and its
            halves ``a.1``, ``a.2`` if these are requested.
        utility: utility sets; empty if only identification sets are compared.
        floors: number of shuffles of each set, seeds 1, 2, ...; for whole layers, which need no shuffles, any number
            above 0 requests the floor.
        halves: whether there are halves.
        contiguous: whether regions of layers are unbroken ranges.

    Raises:
        StudyError: a region is damaged or cannot be compared with the others.
    """
    sets = membership.metadata["names"]

    def overlap_of(suffix: str) -> pa.Table:
        counted = count_membership({name: paths[name + suffix] for name in sets}) if suffix else membership
        pairs = _pairs_with(
            {name: paths[name + suffix] for name in (*sets, *utility)} if utility else {}, utility
        )
        return pa.concat_tables([compute_overlap(counted, "identification"), *pairs]).unify_dictionaries()

    plain = overlap_of("")
    if GRANULARITIES[membership.metadata["granularity"]].exact_floor:
        columns = _placed_floor(plain, membership.metadata["available"][LAYERS], contiguous) if floors else {}
    else:
        columns = _floor([_iou(overlap_of(f"~{seed}")) for seed in range(1, floors + 1)])
    if halves:
        columns["half_iou"] = _mean(np.array([_iou(overlap_of(half)) for half in HALVES]))
        columns["ceiling"] = _ceiling(plain, paths, [*sets, *utility])
    return _framed(plain, columns)


def _pairs_with(paths: Paths, utility: Sequence[str]) -> list[pa.Table]:
    """Return the overlaps of every pair that contains a utility set: one table, or none."""
    others = [name for name in paths if name not in utility]
    pairs = [*product(others, utility), *combinations(sorted(utility), 2)]
    roles = ["mixed"] * (len(others) * len(utility))
    roles += ["utility"] * (len(pairs) - len(roles))
    return [overlap_of_pairs(paths, pairs, roles)] if pairs else []


def _ceiling(plain: pa.Table, paths: Paths, sets: Sequence[str]) -> np.ndarray:
    """Return, for each row of ``plain``, the mean IoU of the halves of the two sets; NaN for more than two sets."""
    within = overlap_of_pairs(
        {name + half: paths[name + half] for name in sets for half in HALVES},
        [(name + HALVES[0], name + HALVES[1]) for name in sets],
        [None] * len(sets),
    )
    groups = within.num_rows // len(sets)
    agreed = dict(zip(sets, _iou(within).reshape(len(sets), groups), strict=True))
    ceiling = np.full((plain.num_rows // groups, groups), np.nan)
    for row, combination in zip(ceiling, plain["combination"].to_pylist()[::groups], strict=True):
        members = combination.split(JOIN)
        if len(members) == 2:
            row[:] = (agreed[members[0]] + agreed[members[1]]) / 2
    return ceiling.ravel()


def _placed_floor(overlap: pa.Table, n_layers: int, contiguous: bool) -> dict[str, np.ndarray]:
    """Return the exact floor of pairs of regions of layers; NaN for more than two sets."""
    rows = zip(*(numbers(overlap, name).tolist() for name in ("k", "smallest", "largest")), strict=True)
    placed = [placed_iou(n_layers, a, b, contiguous) if k == 2 else NOWHERE for k, a, b in rows]
    return dict(zip(FLOOR, np.array(placed, float).reshape(-1, 3).T, strict=True))


def _floor(ious: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    if not ious:
        return {}
    drawn = np.array(ious)
    low, high = (_over_shuffles(lambda x, q=q: np.nanquantile(x, q, axis=0), drawn) for q in QUANTILES)
    return dict(zip(FLOOR, (_mean(drawn), low, high), strict=True))


def _mean(values: np.ndarray) -> np.ndarray:
    return _over_shuffles(lambda x: np.nanmean(x, axis=0), values)


def _over_shuffles(statistic: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """Apply ``statistic`` to the columns of ``values`` (shuffles, rows) that have a number; NaN for the others."""
    known = ~np.isnan(values).all(axis=0)
    found = np.full(values.shape[1], np.nan)
    found[known] = statistic(values[:, known])
    return found


def _framed(overlap: pa.Table, columns: dict[str, np.ndarray]) -> pa.Table:
    """Replace columns of ``overlap``, and add the normalised overlap that follows from them."""
    if {"floor", "half_iou", "ceiling"} <= columns.keys():
        room = columns["ceiling"] - columns["floor"]
        above = columns["half_iou"] - columns["floor"]
        columns["normalised"] = np.divide(above, room, out=np.full(room.shape, np.nan), where=room > 0)
    for name, values in columns.items():
        place = overlap.schema.get_field_index(name)
        overlap = overlap.set_column(
            place, overlap.schema.field(name), column(values, missing=np.isnan(values))
        )
    return overlap


def _iou(overlap: pa.Table) -> np.ndarray:
    return numbers(overlap, "iou", null=np.nan)
