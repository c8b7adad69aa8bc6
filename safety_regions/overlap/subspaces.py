"""Overlap of regions of ranks: how many dimensions two subspaces share, at each address, and what follows from that.

With projectors P_A, P_B of ranks i and j, tr(P_A P_B) = ||U_A^T U_B||_F^2 takes the place of the intersection, and
i + j - tr that of the union. For subspaces along coordinate axes they are the counts of common axes and of all axes.
Summed over addresses:

    IoU        = sum tr / sum (i + j - tr)           (soft IoU; of coordinate axes it is Jaccard's)
    similarity = sum tr / sum min(i, j)               (of one matrix: Wei et al. 2024, figure 4b, after Hu et al. 2022)

By chance, independent subspaces, uniform among those of a dimensions, have tr of

    mean i j / a        variance 2 i j (a - i) (a - j) / (a^2 (a - 1) (a + 2))

where a is the number of ranks of the projection, or, of refined regions, what is left of it. Chance of the IoU is its
mean to second order in the deviation of the sum of tr, that of the similarity is exact.

A product of more than two projectors depends on their order, so there is no IoU of more than two regions.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from safety_regions.errors import StudyError, explain
from safety_regions.formats.columns import category, column, numbers, texts
from safety_regions.formats.contracts import SUBSPACES
from safety_regions.formats.files import REMEDY
from safety_regions.formats.parquet import read_metadata, read_table
from safety_regions.formats.region_file import RegionFile
from safety_regions.formats.subspaces import AnyRegion, Subspaces
from safety_regions.overlap.membership import (
    Membership,
    common_metadata,
    count_membership,
    count_regions,
    described,
    read_membership,
)
from safety_regions.units.addresses import MATRICES, parse_address, sort_addresses
from safety_regions.units.granularity import GRANULARITIES

Pair = tuple[int, int]


class Shared(NamedTuple):
    """Shared dimensions of pairs with their metadata.

    Attributes:
        table: a `SUBSPACES` table; one row per address and pair of names, addresses in order.
        metadata: as in `Membership`, and ``selected``: name -> address -> dimension of its region.
    """

    table: pa.Table
    metadata: dict


Counted = Membership | Shared
"""What the overlaps of a cell are computed from, without its regions."""


def count_files(paths: Mapping[str, str | Path]) -> Counted:
    """Count what the regions of some names share, from their files: by membership, or dimension by dimension.

    Raises:
        StudyError: as `count_membership`.
    """
    metadata = common_metadata(list(paths.values()))
    return measure_shared(paths) if are_subspaces(metadata) else count_membership(paths)


def count_in_memory(regions: Mapping[str, AnyRegion]) -> Counted:
    """As `count_files`, of regions in memory."""
    first = next(iter(regions.values()))
    return shared_of(regions) if isinstance(first, Subspaces) else count_regions(regions)


def read_counted(path: str | Path) -> Counted:
    """Read the table at ``path`` of either kind.

    Raises:
        StudyError: the file is missing or damaged.
    """
    return read_shared(path) if read_metadata(path).get("schema") == SUBSPACES.name else read_membership(path)


def are_subspaces(metadata: Mapping) -> bool:
    """Whether regions with this metadata consist of ranks."""
    return GRANULARITIES[metadata["granularity"]].subspaces


def measure_shared(paths: Mapping[str, str | Path]) -> Shared:
    """Measure the shared dimensions of every pair of names, from their region files.

    Raises:
        StudyError: a damaged file, or regions that cannot be compared.
    """
    return shared_of({name: RegionFile(path) for name, path in paths.items()})


def shared_of(regions: Mapping[str, Subspaces | RegionFile]) -> Shared:
    """Measure the shared dimensions of every pair of names.

    Raises:
        StudyError: regions that cannot be compared, or a damaged file.
    """
    names, metadata = list(regions), described(regions)
    teams = list(combinations(range(len(names)), 2))
    _, shared = traces(list(regions.values()), teams, sort_addresses(metadata["n_units"]))
    selected = {name: _dimensions(region) for name, region in regions.items()}
    return Shared(
        _as_table(names, teams, list(metadata["n_units"]), shared), {**metadata, "selected": selected}
    )


def traces(
    regions: Sequence[Subspaces | RegionFile], teams: Sequence[Pair], addresses: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the dimension of each region (names, addresses), int64, and tr(P_A P_B) of pairs (pairs, addresses).

    Args:
        regions: all at the same addresses; the bases of one address are in memory at a time.
        teams: pairs, as indices of regions.
    """
    sizes = np.array([[_dimensions(region)[where] for where in addresses] for region in regions], np.int64)
    shared = np.zeros((len(teams), len(addresses)))
    for place, where in enumerate(addresses):
        bases = [_basis(region, where) for region in regions]
        for row, (a, b) in zip(shared, teams, strict=True):
            row[place] = shared_dimensions(bases[a], bases[b])
    return sizes, shared


def shared_dimensions(a: np.ndarray, b: np.ndarray) -> float:
    """tr(P_A P_B) for the spans of two orthonormal bases (out, i) and (out, j), computed in their dtype."""
    return float(np.square(a.T @ b).sum())


def _basis(region: Subspaces | RegionFile, where: str) -> np.ndarray:
    basis = region.bases[where] if isinstance(region, Subspaces) else region.basis(where)
    return basis.astype(np.float64)


def _dimensions(region: Subspaces | RegionFile) -> dict[str, int]:
    return region.selected_at if isinstance(region, Subspaces) else region.selected


def _as_table(
    names: Sequence[str], teams: Sequence[Pair], addresses: Sequence[str], shared: np.ndarray
) -> pa.Table:
    places, n = [parse_address(where) for where in addresses], len(teams)
    codes = [MATRICES.index(place.projection) for place in places]
    columns = [
        column(np.repeat(np.array([place.layer for place in places], np.int16), n)),
        category(np.repeat(codes, n), MATRICES),
        texts([names[a] for a, _ in teams] * len(places)),
        texts([names[b] for _, b in teams] * len(places)),
        column(shared.T.ravel()),
    ]
    return pa.Table.from_arrays(columns, schema=SUBSPACES.schema)


def read_shared(path: str | Path) -> Shared:
    """Read the table at ``path`` with its metadata.

    Raises:
        StudyError: the file is missing or damaged, or lacks a pair or an address.
    """
    found = Shared(read_table(path, SUBSPACES), read_metadata(path))
    n = len(found.metadata["names"])
    if found.table.num_rows != n * (n - 1) // 2 * len(found.metadata["n_units"]):
        raise StudyError(explain(path, "rows missing", "every pair of names at every address", REMEDY))
    return found


def pairs_of(shared: Shared) -> list[Pair]:
    """The pairs of names, as indices, in the order of `shared_at`."""
    return list(combinations(range(len(shared.metadata["names"])), 2))


def shared_at(shared: Shared) -> np.ndarray:
    """Return the shared dimensions of every pair at each address: float64, (pairs, addresses)."""
    n_addresses = len(shared.metadata["n_units"])
    return numbers(shared.table, "shared").reshape(n_addresses, len(pairs_of(shared))).T


class Chance(NamedTuple):
    """What independent random subspaces of the same dimensions give: float64, (combinations, groups) each."""

    iou: np.ndarray
    similarity: np.ndarray


def expected_overlap(
    sizes: np.ndarray, available: np.ndarray, teams: Sequence[Pair], inside: np.ndarray
) -> Chance:
    """Return the soft IoU and the similarity expected by chance of each pair in each group; NaN where undefined.

    Args:
        sizes: dimension of each region at each address, (names, addresses).
        available: dimensions that could have been selected at each address, (addresses,).
        teams: pairs, as indices of names.
        inside: which addresses belong to each group, bool, (groups, addresses).
    """
    first, second = (sizes[[team[place] for team in teams]].astype(float) for place in (0, 1))
    a = np.maximum(available, 1).astype(float)
    at_each = first * second / a
    variances = 2 * at_each * (a - first) * (a - second) / (a * np.maximum(a - 1, 1) * (a + 2))
    trace, variance, both, least = (
        values @ inside.T for values in (at_each, variances, first + second, np.minimum(first, second))
    )
    union = both - trace
    return Chance(ratio(trace, union) + ratio(variance * both, union**3), ratio(trace, least))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part divided by whole; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
