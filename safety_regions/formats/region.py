"""A region: a set of units of one backbone, one packed bit for each unit, address by address.

The units of an address are flattened in C order and packed eight to a byte (``numpy.packbits``: the first unit
is the highest bit); the bits that fill up the last byte are 0. `safety_regions.formats.region_file` tells how a
region is stored, and reads it in pieces where it is large.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from safety_regions.errors import StudyError, explain
from safety_regions.formats.region_file import RegionFile, check_padding, count_bits, n_bytes, write_bits

REQUIRED = ("granularity", "scope", "fraction")


@dataclass(frozen=True, eq=False)
class Region:
    """A set of units of one backbone.

    Attributes:
        masks: address -> uint8 vector, the packed bits of its units.
        shapes: address -> (out, in) of weights, (n,) of neurons; "layers" -> (L,) of layers.
        stamp: what made the region; granularity, scope and fraction must be in it when it is written.
        available: address -> units that could have been selected: all of a raw region; a refinement takes
            away those that it excludes.

    Raises:
        StudyError: masks, shapes and available do not fit each other.
    """

    masks: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]
    stamp: dict
    available: dict[str, int]

    def __post_init__(self) -> None:
        if not self.masks.keys() == self.shapes.keys() == self.available.keys():
            raise StudyError(explain("region", "different addresses", "the same in masks, shapes, available"))
        for where, shape in self.shapes.items():
            mask, expected = self.masks[where], n_bytes(shape)
            if mask.dtype != np.uint8 or mask.shape != (expected,):
                raise StudyError(explain(where, f"a mask {mask.dtype} {mask.shape}", f"uint8 ({expected},)"))
            check_padding(where, mask, shape)

    @classmethod
    def pack(cls, flags: Mapping[str, np.ndarray], stamp: dict) -> Self:
        """A raw region from booleans: one array per address, in the address's shape."""
        return cls(
            masks={where: np.packbits(flag) for where, flag in flags.items()},
            shapes={where: flag.shape for where, flag in flags.items()},
            stamp=stamp,
            available={where: flag.size for where, flag in flags.items()},
        )

    def flags(self, where: str) -> np.ndarray:
        """The units of one address as booleans, in the address's shape."""
        flat = np.unpackbits(self.masks[where], count=self.units_at[where])
        return flat.view(bool).reshape(self.shapes[where])

    @cached_property
    def units_at(self) -> dict[str, int]:
        """Address -> number of its units."""
        return {where: math.prod(shape) for where, shape in self.shapes.items()}

    @cached_property
    def selected_at(self) -> dict[str, int]:
        """Address -> number of its units that are in the region."""
        return {where: count_bits(mask) for where, mask in self.masks.items()}

    @property
    def n_units(self) -> int:
        """Units of all addresses."""
        return sum(self.units_at.values())

    @property
    def n_selected(self) -> int:
        """Units in the region."""
        return sum(self.selected_at.values())


def write_region(path: str | Path, region: Region) -> None:
    """Write a region, atomically; the same region gives the same bytes.

    Raises:
        StudyError: the stamp lacks granularity, scope or fraction.
    """
    missing = [key for key in REQUIRED if key not in region.stamp]
    if missing:
        raise StudyError(explain(path, f"a region whose stamp lacks {', '.join(missing)}", "all of them"))
    metadata = {
        **region.stamp,
        "shapes": region.shapes,
        "available": region.available,
        "selected": region.selected_at,
        "n_units": region.n_units,
        "n_selected": region.n_selected,
    }
    write_bits(path, region.masks, metadata)


def read_region(path: str | Path) -> Region:
    """The whole region at ``path``.

    Raises:
        StudyError: the file is missing, or damaged anywhere.
    """
    file = RegionFile(path)
    masks = {where: file.mask(where) for where in file.shapes}
    return Region(masks, file.shapes, file.stamp, file.available)
