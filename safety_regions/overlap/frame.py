"""The frame of every IoU: its value with shuffled statistics (floor) and for two halves of one set (ceiling).

===============  ==========================================================================================
floor            permutation null: mean IoU of the same sets with the attribution statistics (evidence) shuffled
                 (``a~1`` with ``b~1``, ``a~2`` with ``b~2``, ...), that is, the IoU that shared weights alone give.
                 Statistics move among the units that are ranked together: within rows for scope row. Each set has its
                 own shuffle, so shuffled statistics have nothing in common. Of ranks, the inputs are rotated at random.
floor_low/high   95 % prediction interval for the IoU under one more shuffle: mean -+ t s sqrt(1 + 1/m) of the m
                 shuffles' IoUs (Student's t with m - 1 degrees of freedom), cut at 0 and 1
floor_marginals  the same mean for shuffles that keep row and column sums, which any text shares
half_iou         mean of ``a.1`` with ``b.1`` and ``a.2`` with ``b.2``: the IoU at half the prompts
half_floor       the floor of ``a.1`` with ``b.1``, at as many prompts as half_iou and ceiling
ceiling          split-half reliability: mean of ``a.1`` with ``a.2`` and ``b.1`` with ``b.2``, the IoU of disjoint
                 prompts of one set, with as many prompts as half_iou; for pairs only
===============  ==========================================================================================

    normalised = (half_iou - half_floor) / (ceiling - half_floor)

is 0 if two sets share only what the weights alone give, and 1 if they share as much as two halves of one set. It
depends on the number of prompts; the columns of `correlation` do not. `ordinary` has the same with another zero.
A refinement subtracts the same utility region from shuffles and halves as from the set itself, and a refined shuffle
has as many units as the refined set.

For whole layers, the floor is not estimated from shuffles, since a few layers have few permutations: it is the exact
expectation over all placements (`placed_iou`), for pairs, and floor_low and floor_high are its quantiles.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from scipy.special import stdtrit

from safety_regions.formats.columns import column, numbers
from safety_regions.overlap.correlation import correlations
from safety_regions.overlap.iou import JOIN, compute_overlap, overlap_of_pairs
from safety_regions.overlap.ordinary import normalised_ordinary
from safety_regions.overlap.placements import NOWHERE, placed_iou
from safety_regions.overlap.subspaces import Counted, count_files
from safety_regions.units.addresses import LAYERS
from safety_regions.units.granularity import GRANULARITIES

FLOOR = ("floor", "floor_low", "floor_high")
COVERED = 0.95
HALVES = (".1", ".2")
Paths = Mapping[str, str | Path]


class Frame(NamedTuple):
    """What the IoUs of a cell are compared with.

    Attributes:
        utility: utility sets; empty if only identification sets are compared.
        floors: number of shuffles of each set, seeds 1, 2, ...; for whole layers, which need no shuffles, any number
            above 0 requests the floor.
        kind: the kind of shuffle, one of `names.SHUFFLES`.
        marginals: whether there are shuffles that keep row and column sums.
        halves: whether there are halves.
        contiguous: whether regions of layers are unbroken ranges.
    """

    utility: Sequence[str] = ()
    floors: int = 0
    kind: str = ""
    marginals: bool = False
    halves: bool = False
    contiguous: bool = False


def frame_overlap(
    membership: Counted,
    paths: Paths,
    frame: Frame,
    samples: Paths | None = None,
    removed: str | Path | None = None,
) -> pa.Table:
    """Return every IoU of a cell with its chance, floor and ceiling: an `OVERLAP` table.

    Combinations are those of `compute_overlap` for the sets of the membership table, and all pairs that contain a
    utility set.

    Args:
        membership: of the identification sets; or, of ranks, their shared dimensions.
        paths: name -> region file: of every set if there are utility sets, and of the shuffles and halves that the
            frame asks for.
        frame: what to compare with.
        samples, removed: as in `correlations`; without samples, nothing is correlated.

    Raises:
        StudyError: a region is damaged or cannot be compared with the others.
    """
    sets, seeds = membership.metadata["names"], range(1, frame.floors + 1)

    def overlap_of(suffix: str) -> pa.Table:
        counted = count_files({name: paths[name + suffix] for name in sets}) if suffix else membership
        pairs = _pairs_with(
            {name: paths[name + suffix] for name in (*sets, *frame.utility)} if frame.utility else {},
            frame.utility,
        )
        return pa.concat_tables([compute_overlap(counted, "identification"), *pairs]).unify_dictionaries()

    def shuffled(half: str, kind: str) -> np.ndarray:
        """The IoUs of every shuffle: (shuffles, rows)."""
        return np.array([_iou(overlap_of(f"{half}~{seed}{kind}")) for seed in seeds])

    plain, halves = overlap_of(""), [overlap_of(half) for half in HALVES] if frame.halves else []
    columns: dict[str, np.ndarray] = {}
    if frame.floors and GRANULARITIES[membership.metadata["granularity"]].exact_floor:
        n_layers = membership.metadata["available"][LAYERS]
        columns = _placed_floor(plain, n_layers, frame.contiguous)
        if halves:
            columns["half_floor"] = _placed_floor(halves[0], n_layers, frame.contiguous)["floor"]
    elif frame.floors:
        columns = _floor(shuffled("", frame.kind))
        if frame.marginals:
            columns["floor_marginals"] = _mean(shuffled("", "m"))
        if halves:
            columns["half_floor"] = _mean(shuffled(HALVES[0], frame.kind))
    if halves:
        columns["half_iou"] = _mean(np.array([_iou(half) for half in halves]))
        columns["ceiling"] = _ceiling(plain, paths, [*sets, *frame.utility])
    if samples:
        columns |= correlations(plain, samples, membership.metadata["scope"], removed)
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


def _floor(drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Return mean and prediction interval of the shuffles' IoUs (shuffles, rows), in the order of `FLOOR`."""
    mean, known = _mean(drawn), (~np.isnan(drawn)).sum(axis=0)
    spread = np.full(mean.shape, np.nan)
    several = known > 1
    deviation = np.nanstd(drawn[:, several], axis=0, ddof=1)
    m = known[several]
    spread[several] = stdtrit(m - 1, (1 + COVERED) / 2) * deviation * np.sqrt(1 + 1 / m)
    return dict(zip(FLOOR, (mean, (mean - spread).clip(0), (mean + spread).clip(max=1)), strict=True))


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
    if {"half_floor", "half_iou", "ceiling"} <= columns.keys():
        room = columns["ceiling"] - columns["half_floor"]
        above = columns["half_iou"] - columns["half_floor"]
        columns["normalised"] = np.divide(above, room, out=np.full(room.shape, np.nan), where=room > 0)
    if {"half_iou", "ceiling"} <= columns.keys():
        columns["normalised_ordinary"] = normalised_ordinary(overlap, columns["half_iou"], columns["ceiling"])
    for name, values in columns.items():
        place = overlap.schema.get_field_index(name)
        overlap = overlap.set_column(
            place, overlap.schema.field(name), column(values, missing=np.isnan(values))
        )
    return overlap


def _iou(overlap: pa.Table) -> np.ndarray:
    return numbers(overlap, "iou", null=np.nan)
