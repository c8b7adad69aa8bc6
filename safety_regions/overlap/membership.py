"""The histogram behind every IoU of units: the number of units at each address for each pattern of membership.

Bit d of a pattern is set if a unit is in the region of name d. The bits of the regions are read once, one address at a
time, so memory does not grow with the number of layers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from safety_regions.errors import StudyError, explain
from safety_regions.formats.columns import categories, category, column, numbers
from safety_regions.formats.contracts import MEMBERSHIP
from safety_regions.formats.files import REMEDY
from safety_regions.formats.parquet import read_metadata, read_table
from safety_regions.formats.region import Region
from safety_regions.formats.region_file import BLOCK, Block, RegionFile, iter_blocks
from safety_regions.units.addresses import LAYERS, PARTS, address, parse_address, sort_addresses
from safety_regions.units.names import MOST_NAMES

if TYPE_CHECKING:
    from safety_regions.formats.subspaces import Subspaces
    from safety_regions.overlap.subspaces import Counted

# Metadata that must agree for regions to be compared: chance is computed for one scope and one set of available units.
SAME = ("granularity", "backbone", "scope", "refinement")


class Membership(NamedTuple):
    """Pattern counts with their metadata.

    Attributes:
        table: a `MEMBERSHIP` table; the counts of an address sum to its units.
        metadata: ``names`` (name d is bit d), ``n_units`` and ``available`` (address -> units), and the
            granularity, backbone, scope and refinement that the regions share. ``prompts`` has, for
            each name whose region says so, the ids of the prompts that it was found with.
    """

    table: pa.Table
    metadata: dict


class Counts(NamedTuple):
    """The rows of a membership table as arrays: ``addresses[place[i]]`` has ``count[i]`` units of ``pattern[i]``."""

    addresses: list[str]
    place: np.ndarray
    pattern: np.ndarray
    count: np.ndarray


def count_membership(paths_by_name: Mapping[str, str | Path]) -> Membership:
    """Count the 2^k membership patterns of k regions, 1 to 16, address by address.

    Args:
        paths_by_name: name -> region file, in the order of the pattern's bits.

    Raises:
        StudyError: too many regions or none, a damaged file, or regions that cannot be compared: of another
            granularity, backbone, scope, refinement or shape, or with other numbers of available units.
    """
    _check_number(paths_by_name)
    metadata = described({name: RegionFile(path) for name, path in paths_by_name.items()})
    return _counted(iter_blocks(list(paths_by_name.values())), metadata)


def count_regions(regions: Mapping[str, Region]) -> Membership:
    """As `count_membership`, of regions in memory: name -> region."""
    _check_number(regions)
    metadata = described(regions)
    return _counted(_blocks_of(list(regions.values())), metadata)


def described(regions: "Mapping[str, Region | Subspaces | RegionFile]") -> dict:
    """Return the metadata of `Membership` of some names.

    Args:
        regions: name -> region, in memory or an open file.

    Raises:
        StudyError: regions that cannot be compared; see `count_membership`.
    """
    named = {getattr(region, "path", name): region for name, region in regions.items()}
    (first, one), *others = named.items()
    found = {"names": list(regions), **_shared_metadata(named), "prompts": _prompts(regions)}
    for other, region in others:
        if region.shapes != one.shapes:
            raise StudyError(explain(other, "other addresses or shapes", f"those of {first}"))
    return found


def _check_number(regions: Mapping) -> None:
    if not 1 <= len(regions) <= MOST_NAMES:
        raise StudyError(explain("membership", f"{len(regions)} regions", f"1 to {MOST_NAMES}"))


def _blocks_of(regions: Sequence[Region]) -> Iterator[Block]:
    """The regions' bits, `BLOCK` bytes of each at a time."""
    for where in sort_addresses(regions[0].masks):
        for start in range(0, len(regions[0].masks[where]), BLOCK):
            yield Block(where, np.stack([region.masks[where][start : start + BLOCK] for region in regions]))


def _counted(blocks: Iterator[Block], metadata: dict) -> Membership:
    grouped = groupby(blocks, key=lambda block: block.address)
    histograms = {where: sum(_count(block.bits) for block in group) for where, group in grouped}
    for where, n in metadata["n_units"].items():
        histograms[where][0] -= -n % 8  # the padding bits of the last byte are not units
    return Membership(_as_table(histograms), metadata)


def read_membership(path: str | Path) -> Membership:
    """Read the membership table at ``path`` with its metadata.

    Raises:
        StudyError: the file is missing or damaged, or its counts do not sum to its units.
    """
    membership = Membership(read_table(path, MEMBERSHIP), read_metadata(path))
    counts, n_units = as_counts(membership), membership.metadata["n_units"]
    sums = np.zeros(len(n_units), np.int64)
    np.add.at(sums, counts.place, counts.count)
    if sums.tolist() != [n_units[where] for where in counts.addresses]:
        raise StudyError(explain(path, "counts that do not sum to the units of an address", hint=REMEDY))
    return membership


def addresses_of(membership: "Counted") -> list[str]:
    """Return all addresses of the regions, sorted, as in `Counts` and the columns of `sizes_at`."""
    return sort_addresses(membership.metadata["n_units"])


def as_counts(membership: Membership) -> Counts:
    """Return the rows of the table as arrays."""
    table, addresses = membership.table, addresses_of(membership)
    layer, projection = numbers(table, "layer", null=0).astype(np.int64), categories(table, "projection")
    place = np.zeros(len(layer), np.int64)
    if addresses != [LAYERS]:
        codes, first = np.unique(layer * len(projection.words) + projection.codes, return_inverse=True)
        where = [
            address(c // len(projection.words), projection.words[c % len(projection.words)]) for c in codes
        ]
        place = np.array([addresses.index(a) for a in where], np.int64)[first]
    return Counts(addresses, place, numbers(table, "pattern"), numbers(table, "count"))


def sizes_at(membership: "Counted") -> np.ndarray:
    """Return the number of units of each name's region at each address: int64, (names, addresses)."""
    if "selected" in membership.metadata:  # of subspaces, whose dimensions are not counted by patterns
        selected, addresses = membership.metadata["selected"], addresses_of(membership)
        names = membership.metadata["names"]
        return np.array([[selected[name][where] for where in addresses] for name in names], np.int64)
    counts, names = as_counts(membership), membership.metadata["names"]
    sizes = np.zeros((len(names), len(counts.addresses)), np.int64)
    for d in range(len(names)):
        inside = counts.pattern >> d & 1 == 1
        np.add.at(sizes[d], counts.place[inside], counts.count[inside])
    return sizes


def region_totals(membership: "Counted") -> dict[str, int]:
    """Return name -> units in its region, with names in the order of the metadata."""
    return dict(zip(membership.metadata["names"], sizes_at(membership).sum(1).tolist(), strict=True))


def used_prompts(paths: Mapping[str, str | Path]) -> dict[str, list[str]]:
    """Return name -> ids of the prompts that its region was found with; only names whose file says so.

    Args:
        paths: name -> region file.
    """
    return _prompts({name: RegionFile(path) for name, path in paths.items()})


def _prompts(regions: "Mapping[str, Region | Subspaces | RegionFile]") -> dict[str, list[str]]:
    ids = {name: region.metadata.get("prompts_used") for name, region in regions.items()}
    return {name: found for name, found in ids.items() if found is not None}


def common_metadata(paths: list[str | Path]) -> dict:
    """Return the metadata that regions share: the keys of `SAME`, ``available`` and ``n_units`` (address -> units).

    Raises:
        StudyError: a file is missing or damaged, or regions differ in granularity, backbone, scope, refinement
            or available units.
    """
    return _shared_metadata({path: RegionFile(path) for path in paths})


def _shared_metadata(regions: "Mapping[object, Region | Subspaces | RegionFile]") -> dict:
    """See `common_metadata`; keys say which region differs. Shapes are compared where the bits are walked through."""
    one, first = next(iter(regions.items()))
    expected = _comparable(first)
    for other, region in regions.items():
        for key, value in _comparable(region).items():
            if value != expected[key]:
                found = "other numbers of available units" if key == "available" else f"{key} {value}"
                raise StudyError(explain(other, found, f"the same {key} as {one}"))
    shapes = {where: first.shapes[where] for where in sort_addresses(first.shapes)}
    return {**expected, "n_units": {where: math.prod(shape) for where, shape in shapes.items()}}


def _comparable(region: "Region | Subspaces | RegionFile") -> dict:
    available = {where: region.available[where] for where in sort_addresses(region.available)}
    return {key: region.metadata.get(key) for key in SAME} | {"available": available}


def _count(bits: np.ndarray) -> np.ndarray:
    """Count how often each pattern occurs in packed bits (names, bytes): int64, (2^names,)."""
    patterns = _patterns(bits[:8])
    if len(bits) > 8:
        patterns = (_patterns(bits[8:]).astype(np.uint16) << 8) | patterns
    return np.bincount(patterns, minlength=1 << len(bits))


def _patterns(bits: np.ndarray) -> np.ndarray:
    """Return the pattern of every unit in the packed bits (at most 8 names, bytes): uint8, (units,)."""
    patterns = np.unpackbits(bits[-1])
    for mask in bits[-2::-1]:
        patterns += patterns
        patterns |= np.unpackbits(mask)
    return patterns


def _as_table(histograms: Mapping[str, np.ndarray]) -> pa.Table:
    occurring = {where: np.flatnonzero(histogram) for where, histogram in histograms.items()}
    n_rows = [patterns.size for patterns in occurring.values()]
    places = [parse_address(where) for where in occurring]
    layer = np.repeat([-1 if p.layer is None else p.layer for p in places], n_rows).astype(np.int16)
    codes = [-1 if p.projection is None else PARTS.index(p.projection) for p in places]
    counts = [histograms[where][patterns] for where, patterns in occurring.items()]
    columns = [
        column(layer, missing=layer < 0),
        category(np.repeat(codes, n_rows), PARTS),
        column(np.concatenate(list(occurring.values())).astype(np.int32)),
        column(np.concatenate(counts)),
    ]
    return pa.Table.from_arrays(columns, schema=MEMBERSHIP.schema)
