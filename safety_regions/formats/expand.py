"""Expand regions of neurons, heads or layers to weights, so that methods of different granularity can be compared.

A neuron of q, k, v or up is a row of its projection, a neuron of down is a column; a layer is all seven
projections of its block. A head is its rows of q and its columns of o. Where several query heads share the rows of k
and v (grouped-query attention), these rows are in the region if all heads of the group are. Units of a LoRA adapter's
factors expand to the weights that they change most. Weights are unchanged.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from safety_regions.errors import StudyError, explain
from safety_regions.formats.region import Region
from safety_regions.units.addresses import address, parse_address
from safety_regions.units.fractions import scope_count
from safety_regions.units.granularity import GRANULARITIES, Granularity


class Factor(NamedTuple):
    """The LoRA factors of one projection: A (r, in) with the address of its scores, and B (out, r)."""

    a_address: str
    a: np.ndarray
    b: np.ndarray


Factors = Mapping[str, Factor]
Shapes = Mapping[str, Sequence[int]]


class Blocks(NamedTuple):
    """Which units own the weights of a projection: blocks of neighbouring rows or columns, all of the same size.

    Attributes:
        owners: the units that own each block together, as indices, int64 (blocks, units per block).
        axis: 0 for blocks of rows, 1 for blocks of columns.
    """

    owners: np.ndarray
    axis: int

    def spread(self, values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """The value of each weight (out, in) from those of the units: of a block, the smallest of its owners' values.

        So a block lies in a region if all its owners do.
        """
        of_blocks = values[self.owners].min(axis=1)
        of_lines = np.repeat(of_blocks, shape[self.axis] // len(self.owners))
        return np.broadcast_to(np.expand_dims(of_lines, 1 - self.axis), shape)

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """The sum of the values of each block's weights, (blocks,), from those of all weights (out, in)."""
        return weights.sum(axis=1 - self.axis).reshape(len(self.owners), -1).sum(axis=1)


def blocks_of(granularity: Granularity, where: str, shapes: Shapes, n: int) -> Blocks:
    """How units other than weights own the weights of a projection.

    Args:
        granularity: of the units, which own weights of this projection.
        where: address of the projection.
        shapes: address -> (out, in) of every projection.
        n: number of units at their address, ``granularity.home(where)``.

    Raises:
        StudyError: rows or columns cannot be divided among the units.
    """
    layer, projection = parse_address(where)
    if granularity.whole_layers:
        return Blocks(np.array([[layer]]), 0)
    axis = 1 if projection in granularity.columns else 0
    # A block is as large as that of one unit, which shared rows have in another projection.
    alone = address(layer, granularity.shared.get(projection, projection))
    size, rest = divmod(shapes[alone][axis], n)
    blocks, more = divmod(shapes[where][axis], size) if size and not rest else (0, 0)
    if not blocks or more or n % blocks:
        found = f"{n} {granularity.plural}"
        raise StudyError(explain(f"units at {where}", found, f"those of weights {tuple(shapes[where])}"))
    return Blocks(np.arange(n).reshape(blocks, -1), axis)


def expand_region(region: Region, weight_shapes: Shapes, factors: Factors | None = None) -> Region:
    """Expand a region's units to the weights that they consist of.

    Args:
        region: a raw region.
        weight_shapes: address -> (out, in) of every projection of the backbone.
        factors: address of a projection -> its `Factor`, needed if the units belong to an adapter. In each
            projection, the region's fraction of the largest entries of |(B * region of B) (A * region of A)| is taken.

    Returns:
        A region of granularity weight over all addresses of ``weight_shapes``; it is empty at addresses that the method
        does not score. Its scope is matrix, the resolution at which chance is computed.

    Raises:
        StudyError: the region's units do not fit the shapes.
    """
    masks = {where: np.packbits(_expand(region, where, weight_shapes, factors)) for where in weight_shapes}
    shapes = {where: tuple(shape) for where, shape in weight_shapes.items()}
    metadata = {
        **region.metadata,
        "granularity": "weight",
        "scope": "matrix",
        "expanded_from": region.metadata["granularity"],
    }
    return Region(
        masks, shapes, metadata, {where: rows * columns for where, (rows, columns) in shapes.items()}
    )


def _expand(region: Region, where: str, shapes: Shapes, factors: Factors | None) -> np.ndarray:
    granularity = GRANULARITIES[region.metadata["granularity"]]
    if granularity.factors:
        return (
            _moved_most(region, where, factors[where])
            if f"{where}.B" in region.shapes
            else np.zeros(shapes[where], bool)
        )
    home = granularity.home(where)
    if home not in region.shapes:
        return np.zeros(shapes[where], bool)
    return spread_units(region.flags(home), granularity, where, shapes)


def spread_units(values: np.ndarray, granularity: Granularity, where: str, shapes: Shapes) -> np.ndarray:
    """Give values of units to the weights of a projection that they own, (out, in); see `Blocks.spread`.

    Args:
        values: (out, in) for weights, otherwise (n,): of the units at ``granularity.home(where)``.
        granularity: granularity of the units, but not that of LoRA factors.
        where: address of the projection.
        shapes: address -> (out, in) of every projection.

    Raises:
        StudyError: the shapes of units and weights do not match.
    """
    shape = tuple(shapes[where])
    if len(granularity.axes) == 1:
        return blocks_of(granularity, where, shapes, values.size).spread(values, shape)
    if values.shape != shape:
        raise StudyError(explain(f"units at {where}", f"{values.shape}", f"those of weights {shape}"))
    return values


def _moved_most(region: Region, where: str, factor: Factor) -> np.ndarray:
    """The int(fraction * n) largest non-zero entries of |B A|, with A and B restricted to the region's units."""
    b = factor.b * region.flags(f"{where}.B")
    effect = np.abs(b.astype(np.float64) @ (factor.a * region.flags(factor.a_address)))
    k = scope_count(region.metadata["fraction"], effect.size)
    flags = np.zeros(effect.size, bool)
    flags[np.argsort(-effect.ravel(), kind="stable")[:k]] = True
    return flags.reshape(effect.shape) & (effect > 0)
