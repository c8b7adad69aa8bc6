"""Expand regions of neurons or layers to weights, so that methods of different granularity can be compared.

A neuron of q, k, v or up is a row of its projection, a neuron of down is a column; a layer is all seven
projections of its block. Units of a LoRA adapter's factors expand to the weights that they change most. Weights
are unchanged.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from safety_regions.errors import StudyError, explain
from safety_regions.formats.region import Region
from safety_regions.units.addresses import LAYERS, parse_address
from safety_regions.units.fractions import scope_count
from safety_regions.units.granularity import GRANULARITIES, Granularity


class Factor(NamedTuple):
    """The LoRA factors of one projection: A (r, in) with the address of its scores, and B (out, r)."""

    a_address: str
    a: np.ndarray
    b: np.ndarray


Factors = Mapping[str, Factor]


def expand_region(
    region: Region, weight_shapes: Mapping[str, tuple[int, int]], factors: Factors | None = None
) -> Region:
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
    masks = {
        where: np.packbits(_expand(region, where, tuple(shape), factors))
        for where, shape in weight_shapes.items()
    }
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


def _expand(region: Region, where: str, shape: tuple[int, int], factors: Factors | None) -> np.ndarray:
    granularity = GRANULARITIES[region.metadata["granularity"]]
    if granularity.factors:
        return (
            _moved_most(region, where, factors[where])
            if f"{where}.B" in region.shapes
            else np.zeros(shape, bool)
        )
    home = LAYERS if granularity.whole_layers else where
    if home not in region.shapes:
        return np.zeros(shape, bool)
    return spread_units(region.flags(home), granularity, where, shape)


def spread_units(
    values: np.ndarray, granularity: Granularity, where: str, shape: tuple[int, int]
) -> np.ndarray:
    """Broadcast values of units to the weights of a projection, shape (out, in).

    Args:
        values: (out, in) for weights; (n,) for units that are groups of neighbouring rows or columns, all of the same
            size; (L,) for layers.
        granularity: granularity of the units, but not that of LoRA factors.
        where: address of the projection.
        shape: (out, in) of its weights.

    Raises:
        StudyError: the shapes of units and weights do not match.
    """
    place, units = parse_address(where), values.shape
    if granularity.whole_layers:
        return np.full(shape, values[place.layer])
    if values.ndim == 1:
        axis = 1 if place.projection in granularity.columns else 0
        size, rest = divmod(shape[axis], values.size)
        values = np.expand_dims(np.repeat(values, size), 1 - axis) if not rest else values
    if values.ndim != 2 or any(
        own not in (1, wanted) for own, wanted in zip(values.shape, shape, strict=True)
    ):
        raise StudyError(explain(f"units at {where}", f"{units}", f"those of weights {shape}"))
    return np.broadcast_to(values, shape)


def _moved_most(region: Region, where: str, factor: Factor) -> np.ndarray:
    """The int(fraction * n) largest non-zero entries of |B A|, with A and B restricted to the region's units."""
    b = factor.b * region.flags(f"{where}.B")
    effect = np.abs(b.astype(np.float64) @ (factor.a * region.flags(factor.a_address)))
    k = scope_count(region.metadata["fraction"], effect.size)
    flags = np.zeros(effect.size, bool)
    flags[np.argsort(-effect.ravel(), kind="stable")[:k]] = True
    return flags.reshape(effect.shape) & (effect > 0)
