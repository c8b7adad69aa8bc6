"""Refinement: a region without the units that are also in the region of a utility set (Wei et al. 2024, section 2.2).

Both regions are sets of the same units, so this is the set difference ``top-q of safety \\ top-p of utility``,
unit by unit, whatever the scope they were selected in. Regions of ranks are subspaces, and one is projected out of the
other (`safety_regions.regions.subspaces`).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from safety_regions.errors import StudyError, explain
from safety_regions.formats.region import Region
from safety_regions.formats.region_file import count_bits
from safety_regions.formats.score_file import ScoreFile
from safety_regions.formats.subspaces import AnyRegion, Subspaces
from safety_regions.regions.subspaces import first_as_many, subtract_subspaces
from safety_regions.units.addresses import STRATA

SAME = ("granularity", "backbone")


def subtract_region(region: AnyRegion, other: AnyRegion) -> AnyRegion:
    """Return the units of ``region`` that are not in ``other``; the units of ``other`` are no longer available.

    The metadata is that of ``region``, with refinement ``minus-{name of other}`` and the metadata of the other region
    under ``subtracted``.

    Raises:
        StudyError: the regions have different units (granularity, backbone, addresses, shapes), or ``region`` is
            already refined: the units available after two refinements cannot be computed from counts.
    """
    where = f"{_name(region)} minus {_name(other)}"
    for key in SAME:
        if region.metadata.get(key) != other.metadata.get(key):
            raise StudyError(
                explain(where, f"{key} {other.metadata.get(key)}", f"{region.metadata.get(key)}")
            )
    if region.shapes != other.shapes:
        raise StudyError(
            explain(where, "other addresses or shapes", "regions of the same backbone and units")
        )
    if region.available != region.units_at:
        raise StudyError(explain(where, "a region that is refined already", "a raw region"))
    added = {"refinement": f"minus-{_name(other)}", "subtracted": other.metadata}
    if isinstance(region, Subspaces):
        left = subtract_subspaces(region, other)
        return replace(left, metadata=left.metadata | added)
    masks = {address: mask & ~other.masks[address] for address, mask in region.masks.items()}
    available = {address: n - count_bits(other.masks[address]) for address, n in region.units_at.items()}
    return Region(masks, region.shapes, region.metadata | added, available)


def keep_as_many(region: AnyRegion, like: AnyRegion, scores_path: str | Path) -> AnyRegion:
    """Return the best of the region's units: in each scope unit as many as ``like`` has, or all if it has more.

    A utility region takes fewer units from a region of shuffled statistics than from a set's own region. A permutation
    null of the refined region must not be larger than the region itself.

    Args:
        region: a refined region of a shuffle.
        like: the refined region of the same name without the shuffle.
        scores_path: the score table of the shuffle.

    Raises:
        StudyError: the table is damaged, or does not list a unit of the region.
    """
    if isinstance(region, Subspaces):
        return first_as_many(region, like)
    file, scope = ScoreFile(scores_path), region.metadata["scope"]
    kept = {where: np.zeros(n, bool) for where, n in region.units_at.items()}
    for addresses in _groups(scope, list(region.masks)):
        found = [_scored(file, region, where) for where in addresses]
        place = np.repeat(np.arange(len(addresses)), [len(units) for units, _ in found])
        units, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        row = units // region.shapes[addresses[0]][-1] if scope == "row" else np.zeros_like(units)
        order = np.lexsort((units, place, -scores, row))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - np.searchsorted(row[order], row[order])
        allowed = _counts(like, addresses, scope)[row]
        for i, where in enumerate(addresses):
            kept[where][units[(place == i) & (rank < allowed)]] = True
    masks = {where: np.packbits(flags) for where, flags in kept.items()}
    return Region(masks, region.shapes, region.metadata, region.available)


def _groups(scope: str, addresses: list[str]) -> Iterator[list[str]]:
    """The addresses whose units are ranked together."""
    groups: dict[object, list[str]] = {}
    for where in addresses:
        groups.setdefault(STRATA[scope](where), []).append(where)
    yield from groups.values()


def _scored(file: ScoreFile, region: Region, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices and scores of the region's units at an address."""
    flags, units = region.flags(where).ravel(), file.units(where)
    inside = flags[units]
    if np.count_nonzero(inside) != region.selected_at[where]:
        raise StudyError(
            explain(
                f"{file.path}: {where}",
                f"scores of {np.count_nonzero(inside)} units of the region",
                f"{region.selected_at[where]}",
            )
        )
    return units[inside], file.scores(where)[inside]


def _counts(region: Region, addresses: list[str], scope: str) -> np.ndarray:
    """How many units the region has: in each row of the one address, or at all addresses together."""
    if scope == "row":
        return region.flags(addresses[0]).sum(axis=1)
    return np.array([sum(region.selected_at[where] for where in addresses)])


def _name(region: Region) -> str:
    return region.metadata.get("name", "unnamed")
