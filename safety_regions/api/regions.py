"""Regions as boolean arrays: load one, compare two, see neurons and layers as weights."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from safety_regions.errors import StudyError, explain, unknown
from safety_regions.formats import region as packed_region
from safety_regions.formats.expand import expand_region
from safety_regions.formats.region_file import count_bits
from safety_regions.units.addresses import LAYERS, parse_address
from safety_regions.units.granularity import GRANULARITIES


class Masks(Mapping[str, np.ndarray]):
    """Address -> boolean array in the address's shape, made anew from the packed bits whenever it is asked for."""

    def __init__(self, packed: packed_region.Region) -> None:
        self._packed = packed

    def __getitem__(self, address: str) -> np.ndarray:
        return self._packed.flags(address)

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed.shapes)

    def __len__(self) -> int:
        return len(self._packed.shapes)


@dataclass(frozen=True, eq=False, repr=False)
class Region:
    """A set of units of a model; `load_region` reads one, `Region.from_masks` makes one.

    Attributes:
        packed: the region as the workflow keeps it, one bit for each unit.
    """

    packed: packed_region.Region

    @classmethod
    def from_masks(cls, masks: Mapping[str, np.ndarray], metadata: Mapping[str, object]) -> Self:
        """A region from boolean arrays.

        Args:
            masks: address -> booleans, (out, in) of weights, (n,) of neurons; "layers" -> (L,) of layers.
            metadata: ``granularity`` (weight, neuron or layer), and anything else.

        Example:
            >>> region = Region.from_masks({"layers": np.array([False, True])}, {"granularity": "layer"})

        Raises:
            StudyError: no known granularity, an unknown address, or an array that is not boolean.
        """
        arrays = {where: np.asarray(mask) for where, mask in masks.items()}
        for where, array in arrays.items():
            parse_address(where)
            if array.dtype != bool:
                raise StudyError(explain(f"mask of {where}", f"{array.dtype}", "booleans"))
        if metadata.get("granularity") not in GRANULARITIES:
            raise StudyError(unknown("metadata", "granularity", metadata.get("granularity"), GRANULARITIES))
        return cls(packed_region.Region.pack(arrays, dict(metadata)))

    @property
    def masks(self) -> Masks:
        """Address -> booleans: (out, in) of weights, (n,) of neurons; "layers" -> (L,) of layers.

        Each access unpacks the address into a new array, so changing one does not change the region.
        """
        return Masks(self.packed)

    @property
    def metadata(self) -> dict:
        """Granularity, and of a region from a file: scope, fraction, backbone, method, name, refinement, seeds, ...

        ``available`` and ``selected`` hold, by address, the units that could have been selected and those that were.
        """
        packed = self.packed
        return {**packed.stamp, "available": dict(packed.available), "selected": dict(packed.selected_at)}

    def __repr__(self) -> str:
        packed = self.packed
        units = GRANULARITIES[packed.stamp["granularity"]].plural
        return (
            f"<Region: {packed.n_selected:,} of {packed.n_units:,} {units}, {len(packed.shapes)} addresses>"
        )


def load_region(path: str | Path) -> Region:
    """The region in a file of the workflow.

    Example:
        >>> region = load_region("results/regions/organism-llama/snip/fraud/row-0.05/raw.safetensors")
        >>> region.masks["layers.0.q"].mean()  # the share of this matrix's weights that is in the region

    Raises:
        StudyError: the file is missing, damaged, or no region.
    """
    packed = packed_region.read_region(path)
    if packed.stamp.get("granularity") not in GRANULARITIES:
        raise StudyError(unknown(path, "granularity", packed.stamp.get("granularity"), GRANULARITIES))
    return Region(packed)


def iou(a: Region, b: Region) -> float:
    """Units in both regions over units in either, from 0 (nothing shared) to 1 (the same); NaN where both are empty.

    Example:
        >>> iou(load_region("fraud.safetensors"), load_region("drugs.safetensors"))

    Raises:
        StudyError: the regions are of different granularity, addresses or shapes.
    """
    first, second = a.packed, b.packed
    found, expected = second.stamp["granularity"], first.stamp["granularity"]
    if found != expected:
        hint = "expand(region, weight_shapes), which makes both regions of weights"
        raise StudyError(explain("second region", f"granularity {found}", f"{expected} as the first", hint))
    for where in first.shapes | second.shapes:
        found, expected = second.shapes.get(where), first.shapes.get(where)
        if found != expected:
            found, expected = (f"shape {shape}" if shape else "no units" for shape in (found, expected))
            raise StudyError(explain(f"second region at {where}", found, f"{expected} as the first"))
    pairs = [(first.masks[where], second.masks[where]) for where in first.masks]
    both, either = sum(count_bits(x & y) for x, y in pairs), sum(count_bits(x | y) for x, y in pairs)
    return both / either if either else math.nan


def expand(region: Region, weight_shapes: Mapping[str, Sequence[int]]) -> Region:
    """The weights that a region's units are made of, as a region of weights.

    A neuron of q, k, v or up is a row of its matrix, one of down a column; a layer is all matrices of its block.

    Args:
        region: of weights, neurons or layers.
        weight_shapes: address -> (out, in) of every matrix of the model; `safety_regions.weight_shapes` makes them.

    Example:
        >>> weights = expand(load_region("neurons.safetensors"), {"layers.0.q": (32, 32), "layers.0.down": (32, 48)})

    Raises:
        StudyError: the region is of other units, or of a model of other shapes.
    """
    packed, granularity = region.packed, GRANULARITIES[region.packed.stamp["granularity"]]
    if granularity.factors:
        raise StudyError(explain("region", granularity.plural, "a region of weights, neurons or layers"))
    for where, shape in packed.shapes.items():
        if where == LAYERS:
            expected = (1 + max((parse_address(address).layer for address in weight_shapes), default=-1),)
        elif len(shape) == 2:
            expected = tuple(weight_shapes.get(where, ()))
        else:
            expected = (
                shape if where in weight_shapes else ()
            )  # the number of neurons is checked as they spread
        if shape != expected:
            found = f"shape {shape}"
            raise StudyError(
                explain(f"region at {where}", found, f"{expected or 'no such matrix'} of the model")
            )
    return Region(expand_region(packed, {where: tuple(shape) for where, shape in weight_shapes.items()}))
