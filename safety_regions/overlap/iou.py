"""Every IoU of a set of regions, or of pairs of them, from the counts of their membership patterns.

With c[P] units of pattern P, a combination T of names has

    intersection(T) = sum of c[P] over the patterns P that contain all of T
    union(T)        = all units - sum of c[P] over the patterns P that contain none of T

and one pass over the bits gives each sum for all T at once (the zeta transform on the lattice of subsets). The
masks are not read again. If only pairs are needed, of more names than a pattern has bits, the bits are counted pair by
pair (`overlap_of_pairs`).

Regions of ranks are subspaces, of which only pairs have an IoU (`safety_regions.overlap.subspaces`).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from safety_regions.formats.columns import categories, category, column, numbers, texts
from safety_regions.formats.contracts import OVERLAP
from safety_regions.formats.region_file import RegionFile, count_bits, iter_blocks
from safety_regions.overlap.chance import expected_iou
from safety_regions.overlap.membership import (
    Counts,
    Membership,
    addresses_of,
    as_counts,
    common_metadata,
    sizes_at,
)
from safety_regions.overlap.subspaces import (
    Counted,
    Shared,
    are_subspaces,
    expected_overlap,
    pairs_of,
    ratio,
    shared_at,
    traces,
)
from safety_regions.units.addresses import PARTS, parse_address, sort_addresses

ALL_SUBSETS = 12
JOIN = " & "
LEVELS = ("model", "layer", "projection")

Team = tuple[int, ...]


class Groups(NamedTuple):
    """The g groups of addresses that IoUs are computed for: codes (g,), -1 for null, and members (g, addresses)."""

    level: np.ndarray
    layer: np.ndarray
    projection: np.ndarray
    inside: np.ndarray


def compute_overlap(counted: Counted, between: str | None = None) -> pa.Table:
    """Compute intersection, union, IoU and chance of every combination at every level: an `OVERLAP` table.

    With up to 12 names, every combination of 2 or more is computed; with more names, all pairs, all names but one, and
    the first 2, 3, ... names. Levels are the model, each layer and each projection; if units are whole layers, only
    the model. Floor and ceiling remain null, since they need other names (`frame`).

    Args:
        counted: patterns of membership; or shared dimensions, for which all pairs are computed and nothing else.
        between: role of the names, for the column ``between``.
    """
    names, groups = counted.metadata["names"], _group(addresses_of(counted))
    if isinstance(counted, Shared):
        teams = pairs_of(counted)
        values = _values_of_subspaces(shared_at(counted), teams, groups, sizes_at(counted), counted.metadata)
    else:
        teams = choose_teams(len(names))
        lattice = _from_lattice(_lattice(as_counts(counted), groups, len(names)), teams)
        values = _values(lattice, teams, groups, sizes_at(counted), counted.metadata)
    roles = [between] * len(teams)
    return _as_table([[names[d] for d in team] for team in teams], roles, groups, values)


def overlap_of_pairs(
    paths: Mapping[str, str | Path], pairs: Sequence[tuple[str, str]], between: Sequence[str | None]
) -> pa.Table:
    """Compute the same for some pairs only, directly from the regions: an `OVERLAP` table.

    Args:
        paths: name -> region file, any number of names.
        pairs: pairs of names.
        between: the role of each pair.

    Raises:
        StudyError: a damaged file, or regions that cannot be compared; see `common_metadata`.
    """
    metadata, place = common_metadata(list(paths.values())), {name: i for i, name in enumerate(paths)}
    teams = [(place[a], place[b]) for a, b in pairs]
    addresses = sort_addresses(metadata["n_units"])
    groups = _group(addresses)
    if are_subspaces(metadata):
        sizes, shared = traces([RegionFile(path) for path in paths.values()], teams, addresses)
        values = _values_of_subspaces(shared, teams, groups, sizes, metadata)
        return _as_table(pairs, between, groups, values)
    sizes, both = _count_pairs(list(paths.values()), teams, addresses)
    first, second = (sizes[[team[i] for team in teams]] for i in (0, 1))
    counts = tuple(at @ groups.inside.T for at in (both, first + second - both))
    return _as_table(pairs, between, groups, _values(counts, teams, groups, sizes, metadata))


def _count_pairs(
    paths: Sequence[str | Path], teams: Sequence[Team], addresses: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Count the units of each region (names, addresses) and of each pair's intersection (pairs, addresses); int64."""
    place = {where: i for i, where in enumerate(addresses)}
    sizes = np.zeros((len(paths), len(addresses)), np.int64)
    both = np.zeros((len(teams), len(addresses)), np.int64)
    for where, bits in iter_blocks(paths):
        sizes[:, place[where]] += np.bitwise_count(bits).sum(1, dtype=np.int64)
        for row, (a, b) in zip(both, teams, strict=True):
            row[place[where]] += count_bits(bits[a] & bits[b])
    return sizes, both


def _values(
    counts: tuple[np.ndarray, np.ndarray],
    teams: Sequence[Team],
    groups: Groups,
    at: np.ndarray,
    metadata: dict,
) -> dict[str, np.ndarray]:
    """Return the columns of numbers, (combinations, groups) each, from intersections, unions and sizes ``at`` (names,
    addresses)."""
    intersection, union = counts
    return {
        "intersection": intersection,
        "union": union,
        "iou": ratio(intersection, union),
        **_extremes(at, groups, teams),
        "chance": expected_iou(
            metadata["scope"],
            sort_addresses(metadata["n_units"]),
            at,
            _available(metadata),
            teams,
            groups.inside,
        ),
    }


def _values_of_subspaces(
    shared: np.ndarray, teams: Sequence[Team], groups: Groups, at: np.ndarray, metadata: dict
) -> dict[str, np.ndarray]:
    """The same from the shared dimensions of pairs (pairs, addresses). There are no units in both or in either."""
    first, second = (at[[team[place] for team in teams]] for place in (0, 1))
    trace = shared @ groups.inside.T
    chance = expected_overlap(at, _available(metadata), teams, groups.inside)
    return {
        "iou": ratio(trace, (first + second) @ groups.inside.T - trace),
        **_extremes(at, groups, teams),
        "chance": chance.iou,
        "dimensions": trace,
        "similarity": ratio(trace, np.minimum(first, second) @ groups.inside.T),
        "similarity_chance": chance.similarity,
    }


def _extremes(at: np.ndarray, groups: Groups, teams: Sequence[Team]) -> dict[str, np.ndarray]:
    """Sizes of the smallest and the largest region of each combination, (combinations, groups)."""
    shape, sizes = (len(teams), len(groups.level)), at @ groups.inside.T
    return {
        name: np.array([pick(sizes[list(team)], axis=0) for team in teams], np.int64).reshape(shape)
        for name, pick in (("smallest", np.min), ("largest", np.max))
    }


def choose_teams(n: int) -> list[Team]:
    """Return the combinations of n names that are computed, as tuples of indices, smaller ones first."""
    if n <= ALL_SUBSETS:
        return [team for k in range(2, n + 1) for team in combinations(range(n), k)]
    prefixes = {tuple(range(k)) for k in range(2, n + 1)}
    teams = prefixes | set(combinations(range(n), 2)) | set(combinations(range(n), n - 1))
    return sorted(teams, key=lambda team: (len(team), team))


def iou_matrix(overlap: pa.Table, sizes: Mapping[str, int]) -> np.ndarray:
    """Return the pairwise IoUs over the whole model: float64, (names, names), NaN where undefined.

    Args:
        overlap: an `OVERLAP` table.
        sizes: name -> units in its region, in the order of the matrix. The IoU of a region with itself is 1, or
            undefined if it is empty. Pairs with other names are left out.
    """
    place = {name: i for i, name in enumerate(sizes)}
    matrix = np.diag([1.0 if n else np.nan for n in sizes.values()])
    is_model = categories(overlap, "level").codes == _code_of(overlap, "level", "model")
    rows = np.flatnonzero(is_model & (numbers(overlap, "k") == 2))
    pairs = overlap["combination"].take(column(rows)).to_pylist()
    for pair, iou in zip(pairs, numbers(overlap, "iou", null=np.nan)[rows], strict=True):
        names = pair.split(JOIN)
        if place.keys() >= set(names):
            a, b = (place[name] for name in names)
            matrix[a, b] = matrix[b, a] = iou
    return matrix


def intersections_and_unions(membership: Membership) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of every combination over the whole model: int64, (2^names,) each.

    Combinations are patterns: bit d stands for name d. Those of the empty one, 0, are all units and none.
    """
    n_names, counts = len(membership.metadata["names"]), as_counts(membership)
    lattice = np.zeros((1, 1 << n_names), np.int64)
    np.add.at(lattice[0], counts.pattern, counts.count)
    holds_all, holds_none = _zeta(lattice, into=0, source=1)[0], _zeta(lattice, into=1, source=0)[0]
    return holds_all, lattice.sum() - holds_none[::-1]


def _group(addresses: Sequence[str]) -> Groups:
    places = [parse_address(where) for where in addresses]
    layers = sorted({p.layer for p in places} - {None})
    projections = [i for i, name in enumerate(PARTS) if any(p.projection == name for p in places)]
    inside = [
        np.ones(len(places), bool),
        *(np.array([p.layer == layer for p in places]) for layer in layers),
        *(np.array([p.projection == PARTS[i] for p in places]) for i in projections),
    ]
    return Groups(
        level=np.repeat(np.arange(3), [1, len(layers), len(projections)]),
        layer=np.array([-1, *layers, *[-1] * len(projections)], np.int16),
        projection=np.array([-1, *[-1] * len(layers), *projections]),
        inside=np.array(inside),
    )


def _lattice(counts: Counts, groups: Groups, n_names: int) -> np.ndarray:
    """Count the units of each group and pattern: int64, (groups, 2^names)."""
    lattice = np.zeros((len(groups.inside), 1 << n_names), np.int64)
    for cells, inside in zip(lattice, groups.inside, strict=True):
        rows = inside[counts.place]
        np.add.at(cells, counts.pattern[rows], counts.count[rows])
    return lattice


def _from_lattice(lattice: np.ndarray, teams: Sequence[Team]) -> tuple[np.ndarray, np.ndarray]:
    """Return intersections and unions of the combinations: int64, (combinations, groups) each."""
    team_bits = np.array([sum(1 << d for d in team) for team in teams], np.int64)
    others = lattice.shape[1] - 1 - team_bits
    holds_all = _zeta(lattice, into=0, source=1)[:, team_bits]
    holds_none = _zeta(lattice, into=1, source=0)[:, others]
    return holds_all.T, (lattice.sum(1, keepdims=True) - holds_none).T


def _zeta(lattice: np.ndarray, into: int, source: int) -> np.ndarray:
    """Return the sums over supersets (``into=0, source=1``) or subsets (``into=1, source=0``) of every pattern."""
    sums = lattice.copy()
    n_names = lattice.shape[1].bit_length() - 1
    for d in range(n_names):
        by_bit = sums.reshape(len(sums), -1, 2, 1 << d)
        by_bit[:, :, into] += by_bit[:, :, source]
    return sums


def _available(metadata: dict) -> np.ndarray:
    """Units that could have been selected at each address, (addresses,)."""
    return np.array([metadata["available"][where] for where in sort_addresses(metadata["n_units"])])


def _as_table(
    teams: Sequence[Sequence[str]],
    between: Sequence[str | None],
    groups: Groups,
    values: Mapping[str, np.ndarray],
) -> pa.Table:
    n_teams, n_groups = len(teams), len(groups.level)
    labels = [JOIN.join(sorted(team)) for team in teams]
    roles = sorted({role for role in between if role})
    codes = [roles.index(role) if role else -1 for role in between]
    arrays = {
        "combination": texts(labels).take(column(np.repeat(np.arange(n_teams), n_groups))),
        "between": category(np.repeat(codes, n_groups), roles),
        "k": column(np.repeat(np.array([len(team) for team in teams], np.int16), n_groups)),
        "level": category(np.tile(groups.level, n_teams), LEVELS),
        "layer": column(np.tile(groups.layer, n_teams), missing=np.tile(groups.layer < 0, n_teams)),
        "projection": category(np.tile(groups.projection, n_teams), PARTS),
        **{name: column(v.ravel(), missing=np.isnan(v.ravel())) for name, v in values.items()},
    }
    n_rows = n_teams * n_groups  # null: floor, ceiling, the columns derived from them, and numbers of prompts
    filled = [arrays.get(f.name, pa.nulls(n_rows, f.type)) for f in OVERLAP.schema]
    return pa.Table.from_arrays(filled, schema=OVERLAP.schema)


def _code_of(table: pa.Table, name: str, word: str) -> int:
    words = categories(table, name).words
    return words.index(word) if word in words else -2
