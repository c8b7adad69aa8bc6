"""A region: a set of units of one backbone, with one packed bit per unit at each address.

The units of an address are flattened in C order and packed eight to a byte (``numpy.packbits``: the first unit
is the highest bit); unused bits of the last byte are 0. `safety_regions.formats.region_file` defines the file format
and reads large regions in pieces.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from safety_regions.errors import StudyError, explain
from safety_regions.formats.files import named_files
from safety_regions.formats.region_file import RegionFile, check_padding, count_bits, n_bytes, write_tensors

if TYPE_CHECKING:
    from safety_regions.formats.subspaces import Subspaces

REQUIRED = ("granularity", "scope", "fraction")


@dataclass(frozen=True, eq=False)
class Region:
    """A set of units of one backbone.

    Attributes:
        masks: address -> packed bits of its units, a uint8 vector.
        shapes: address -> (out, in) for weights, (n,) for neurons and heads; "layers" -> (L,) for layers.
        metadata: how the region was made; must contain granularity, scope and fraction when it is written.
        available: address -> number of units that could have been selected: all units of a raw region; a refinement
            excludes some.

    Raises:
        StudyError: masks, shapes and available are inconsistent.
    """

    masks: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]
    metadata: dict
    available: dict[str, int]

    def __post_init__(self) -> None:
        if not self.masks.keys() == self.shapes.keys() == self.available.keys():
            raise StudyError(
                explain("region", "different addresses", "the same addresses in masks, shapes and available")
            )
        for where, shape in self.shapes.items():
            mask, expected = self.masks[where], n_bytes(shape)
            if mask.dtype != np.uint8 or mask.shape != (expected,):
                raise StudyError(explain(where, f"a mask {mask.dtype} {mask.shape}", f"uint8 ({expected},)"))
            check_padding(where, mask, shape)

    @classmethod
    def pack(cls, flags: Mapping[str, np.ndarray], metadata: dict) -> Self:
        """Make a raw region from boolean arrays, one per address, in the address's shape."""
        return cls(
            masks={where: np.packbits(flag) for where, flag in flags.items()},
            shapes={where: flag.shape for where, flag in flags.items()},
            metadata=metadata,
            available={where: flag.size for where, flag in flags.items()},
        )

    def flags(self, where: str) -> np.ndarray:
        """The units of one address as booleans, in the address's shape."""
        flat = np.unpackbits(self.masks[where], count=self.units_at[where])
        return flat.view(bool).reshape(self.shapes[where])

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """What a file of the region stores: the packed bits."""
        return self.masks

    @cached_property
    def units_at(self) -> dict[str, int]:
        """Address -> number of its units."""
        return {where: math.prod(shape) for where, shape in self.shapes.items()}

    @cached_property
    def selected_at(self) -> dict[str, int]:
        """Address -> number of its units in the region."""
        return {where: count_bits(mask) for where, mask in self.masks.items()}

    @property
    def n_units(self) -> int:
        """Number of units at all addresses."""
        return sum(self.units_at.values())

    @property
    def n_selected(self) -> int:
        """Number of units in the region."""
        return sum(self.selected_at.values())


def write_region(path: str | Path, region: "Region | Subspaces") -> None:
    """Write a region of any granularity atomically; equal regions give identical files.

    Raises:
        StudyError: the metadata lacks granularity, scope or fraction.
    """
    missing = [key for key in REQUIRED if key not in region.metadata]
    if missing:
        raise StudyError(
            explain(path, f"region metadata without {', '.join(missing)}", f"{', '.join(REQUIRED)}")
        )
    metadata = {
        **region.metadata,
        "shapes": region.shapes,
        "available": region.available,
        "selected": region.selected_at,
        "n_units": region.n_units,
        "n_selected": region.n_selected,
    }
    write_tensors(path, region.tensors, metadata)


def region_files(names: Sequence[str], paths: Sequence[str | Path]) -> dict[str, Path]:
    """Name -> region file, where each path is that of the file or of the frame that holds it."""
    return named_files(names, paths, ".safetensors")


def read_region(path: str | Path) -> Region:
    """Read the whole region at ``path``; `safety_regions.formats.subspaces` reads one of ranks.

    Raises:
        StudyError: the file is missing, damaged anywhere, or a region of ranks.
    """
    file = RegionFile(path)
    masks = {where: file.mask(where) for where in file.shapes}
    return Region(masks, file.shapes, file.metadata, file.available)
