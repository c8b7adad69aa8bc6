"""A region of ranks: at each address a subspace of a projection's outputs, given by a nested orthonormal basis.

The first i columns of a basis span the best i directions. A file of such a region has the metadata of every region
file, with ``shapes`` of (min(out, in),), and a float32 matrix (out, selected) for each address in the place of the
packed bits (`safety_regions.formats.region_file`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from safety_regions.errors import StudyError, explain
from safety_regions.formats.region import Region, read_region
from safety_regions.formats.region_file import RegionFile

ORTHONORMAL = 1e-3
"""Largest entry of U^T U - I of a basis U in float32, which is a few roundings of its columns."""


@dataclass(frozen=True, eq=False)
class Subspaces:
    """A region of ranks of one backbone.

    Attributes:
        bases: address -> orthonormal columns, (out, selected), best first.
        shapes: address -> (ranks,), with ranks = min(out, in) of the projection.
        metadata: as in `Region`.
        available: address -> dimensions that could have been selected: all ranks of a raw region; a refinement excludes
            those of the subspace that it removes.

    Raises:
        StudyError: bases, shapes and available are inconsistent, or a basis is not orthonormal.
    """

    bases: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]
    metadata: dict
    available: dict[str, int]

    def __post_init__(self) -> None:
        if not self.bases.keys() == self.shapes.keys() == self.available.keys():
            raise StudyError(
                explain("region", "different addresses", "the same addresses in bases, shapes and available")
            )
        for where, basis in self.bases.items():
            most = self.units_at[where]
            if basis.ndim != 2 or basis.shape[1] > most:
                raise StudyError(explain(where, f"a basis {basis.shape}", f"(outputs, at most {most})"))
            wide = basis.astype(np.float64)
            error = np.abs(wide.T @ wide - np.eye(basis.shape[1])).max(initial=0)
            if not error <= ORTHONORMAL:
                raise StudyError(
                    explain(where, f"a basis with an error of {error:.1e}", "orthonormal columns")
                )

    @classmethod
    def raw(cls, bases: Mapping[str, np.ndarray], ranks: Mapping[str, int], metadata: dict) -> Self:
        """Make a raw region from bases (out, selected) and the numbers of ranks of the projections."""
        shapes = {where: (ranks[where],) for where in bases}
        return cls(dict(bases), shapes, metadata, {where: ranks[where] for where in bases})

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """What a file of the region stores: the bases in float32."""
        return {where: basis.astype(np.float32) for where, basis in self.bases.items()}

    @cached_property
    def units_at(self) -> dict[str, int]:
        """Address -> number of its ranks."""
        return {where: math.prod(shape) for where, shape in self.shapes.items()}

    @cached_property
    def selected_at(self) -> dict[str, int]:
        """Address -> dimension of the region."""
        return {where: basis.shape[1] for where, basis in self.bases.items()}

    @property
    def n_units(self) -> int:
        """Number of ranks at all addresses."""
        return sum(self.units_at.values())

    @property
    def n_selected(self) -> int:
        """Sum of the region's dimensions."""
        return sum(self.selected_at.values())


AnyRegion = Region | Subspaces


def read_subspaces(path: str | Path) -> Subspaces:
    """Read a region of ranks.

    Raises:
        StudyError: the file is missing, damaged, or a region of other units.
    """
    file = RegionFile(path)
    if not file.has_bases:
        raise StudyError(explain(path, f"a region of granularity {file.metadata['granularity']}", "rank"))
    return Subspaces({w: file.basis(w) for w in file.shapes}, file.shapes, file.metadata, file.available)


def read_any_region(path: str | Path) -> AnyRegion:
    """Read a region of any granularity.

    Raises:
        StudyError: the file is missing or damaged.
    """
    return (read_subspaces if RegionFile(path).has_bases else read_region)(path)
