"""Regions as boolean arrays: load a region, compare two, expand neurons, heads and layers to weights."""

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
    """Address -> boolean array in the address's shape, unpacked from the stored bits on every access."""

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
    """A set of units of a model; read one with `load_region` or make one with `Region.from_masks`.

    Attributes:
        packed: the region in the workflow's representation, with one bit per unit.
    """

    packed: packed_region.Region

    @classmethod
    def from_masks(cls, masks: Mapping[str, np.ndarray], metadata: Mapping[str, object]) -> Self:
        """Make a region from boolean arrays.

        Args:
            masks: address -> boolean array, (out, in) for weights, (n,) for neurons and heads; "layers" -> (L,) for
                layers.
            metadata: ``granularity`` (weight, neuron, head or layer), and any other entries.

        Example:
            >>> region = Region.from_masks({"layers": np.array([False, True])}, {"granularity": "layer"})

        Raises:
            StudyError: the granularity or an address is unknown, or an array is not boolean.
        """
        arrays = {where: np.asarray(mask) for where, mask in masks.items()}
        for where, array in arrays.items():
            parse_address(where)
            if array.dtype != bool:
                raise StudyError(explain(f"mask of {where}", f"{array.dtype}", "booleans"))
        kinds = [name for name, kind in GRANULARITIES.items() if not kind.subspaces]
        if metadata.get("granularity") not in kinds:
            raise StudyError(unknown("metadata", "granularity", metadata.get("granularity"), kinds))
        return cls(packed_region.Region.pack(arrays, dict(metadata)))

    @property
    def masks(self) -> Masks:
        """Address -> boolean array: (out, in) for weights, (n,) for neurons and heads; "layers" -> (L,) for layers.

        Each access returns a new array; changing it does not change the region.
        """
        return Masks(self.packed)

    @property
    def metadata(self) -> dict:
        """Granularity and, for a region from a file, scope, fraction, backbone, method, name, refinement, seeds, ...

        ``available`` and ``selected``: address -> number of units that could have been selected, and that were.
        """
        packed = self.packed
        return {**packed.metadata, "available": dict(packed.available), "selected": dict(packed.selected_at)}

    def save(self, path: str | Path) -> None:
        """Write the region as a file that `load_region` and the workflow read (`given` in the section `behaviour`).

        Raises:
            StudyError: the metadata lacks granularity, scope or fraction.
        """
        packed_region.write_region(path, self.packed)

    def __repr__(self) -> str:
        packed = self.packed
        units = GRANULARITIES[packed.metadata["granularity"]].plural
        return (
            f"<Region: {packed.n_selected:,} of {packed.n_units:,} {units}, {len(packed.shapes)} addresses>"
        )


def load_region(path: str | Path) -> Region:
    """Read a region from a file of the workflow.

    Example:
        >>> region = load_region("results/regions/organism-llama/snip/fraud/row-0.05/raw.safetensors")
        >>> region.masks["layers.0.q"].mean()  # the share of this matrix's weights that is in the region

    Raises:
        StudyError: the file is missing, damaged, not a region, or a region of ranks: these are subspaces, which
            `safety_regions.formats.subspaces.read_subspaces` reads.
    """
    packed = packed_region.read_region(path)
    if packed.metadata.get("granularity") not in GRANULARITIES:
        raise StudyError(unknown(path, "granularity", packed.metadata.get("granularity"), GRANULARITIES))
    return Region(packed)


def iou(a: Region, b: Region) -> float:
    """Intersection over union of two regions, from 0 (disjoint) to 1 (equal); NaN if both are empty.

    Example:
        >>> iou(load_region("fraud.safetensors"), load_region("drugs.safetensors"))

    Raises:
        StudyError: the regions differ in granularity, addresses or shapes.
    """
    first, second = a.packed, b.packed
    found, expected = second.metadata["granularity"], first.metadata["granularity"]
    if found != expected:
        hint = "expand(region, weight_shapes), which turns both into regions of weights"
        raise StudyError(
            explain("second region", f"granularity {found}", f"{expected}, as in the first", hint)
        )
    for where in first.shapes | second.shapes:
        found, expected = second.shapes.get(where), first.shapes.get(where)
        if found != expected:
            found, expected = (f"shape {shape}" if shape else "no units" for shape in (found, expected))
            raise StudyError(explain(f"second region at {where}", found, f"{expected}, as in the first"))
    pairs = [(first.masks[where], second.masks[where]) for where in first.masks]
    both, either = sum(count_bits(x & y) for x, y in pairs), sum(count_bits(x | y) for x, y in pairs)
    return both / either if either else math.nan


def expand(region: Region, weight_shapes: Mapping[str, Sequence[int]]) -> Region:
    """Expand a region to a region of the weights that its units consist of.

    A neuron of q, k, v or up is a row of its matrix, a neuron of down is a column; a layer is all matrices of its
    block. A head is its rows of q and its columns of o, and rows of k and v if all heads that share them are in the
    region.

    Args:
        region: region of weights, neurons, heads or layers.
        weight_shapes: address -> (out, in) of every matrix of the model, from `safety_regions.weight_shapes`.

    Example:
        >>> weights = expand(load_region("neurons.safetensors"), {"layers.0.q": (32, 32), "layers.0.down": (32, 48)})

    Raises:
        StudyError: the region has other units, or its shapes do not match the model.
    """
    packed, granularity = region.packed, GRANULARITIES[region.packed.metadata["granularity"]]
    if granularity.factors:
        raise StudyError(
            explain("region", granularity.plural, "a region of weights, neurons, heads or layers")
        )
    homes = {granularity.home(where) for where in weight_shapes}
    for where, shape in packed.shapes.items():
        if where == LAYERS:
            expected = (1 + max((parse_address(address).layer for address in weight_shapes), default=-1),)
        elif len(shape) == 2:
            expected = tuple(weight_shapes.get(where, ()))
        else:
            expected = (
                shape if where in homes else ()
            )  # the number of neurons or heads is checked when they are expanded
        if shape != expected:
            found = f"shape {shape}"
            raise StudyError(
                explain(f"region at {where}", found, f"{expected or 'no such matrix'}, as in the model")
            )
    return Region(expand_region(packed, {where: tuple(shape) for where, shape in weight_shapes.items()}))
