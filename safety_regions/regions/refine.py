"""Refinement: a region without the units that are also in the region of a utility set (Wei et al. 2024, section 2.2).

Both regions are sets of the same units, so this is the set difference ``top-q of safety \\ top-p of utility``,
unit by unit, whatever the scope they were selected in.
"""

from safety_regions.errors import StudyError, explain
from safety_regions.formats.region import Region
from safety_regions.formats.region_file import count_bits

SAME = ("granularity", "backbone")


def subtract_region(region: Region, other: Region) -> Region:
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
    masks = {address: mask & ~other.masks[address] for address, mask in region.masks.items()}
    available = {address: n - count_bits(other.masks[address]) for address, n in region.units_at.items()}
    metadata = {**region.metadata, "refinement": f"minus-{_name(other)}", "subtracted": other.metadata}
    return Region(masks, region.shapes, metadata, available)


def _name(region: Region) -> str:
    return region.metadata.get("name", "unnamed")
