"""The stubs share a backbone of two small layers, and scores that are drawn from names so that sets overlap."""

from collections.abc import Iterator
from zlib import crc32

import numpy as np
import pyarrow as pa

from safety_regions.formats.columns import category, column
from safety_regions.units.addresses import LAYERS, PARTS, PROJECTIONS, parse_address
from safety_regions.units.granularity import GRANULARITIES

N_LAYERS, ROWS, COLUMNS, NEURONS, HEADS, RANK, PROMPTS = 2, 4, 100, 16, 4, 2, 3
"""A row has 100 weights, so that a selection of 1 % keeps one of them."""


def weight_shapes() -> dict[str, tuple[int, int]]:
    """Return address -> (out, in) of every projection."""
    return {where: (ROWS, COLUMNS) for where in _addresses(PROJECTIONS)}


def scored_shapes(granularity: str) -> dict[str, tuple[int, ...]]:
    """Return address -> shape of the units that a method scores."""
    kind = GRANULARITIES[granularity]
    if kind.whole_layers:
        return {LAYERS: (N_LAYERS,)}
    if kind.part:
        return {where: (HEADS,) for where in _addresses((kind.part,))}
    if kind.axes == ("unit",):
        return {where: (NEURONS,) for where in _addresses(kind.projections)}
    if not kind.factors:
        return weight_shapes()
    factors = {".A": (RANK, COLUMNS), ".B": (ROWS, RANK)}
    return {where + factor: shape for where in _addresses(PROJECTIONS) for factor, shape in factors.items()}


def _addresses(projections: tuple[str, ...]) -> list[str]:
    return [f"{LAYERS}.{layer}.{projection}" for layer in range(N_LAYERS) for projection in projections]


def draw(*names: object, shape: tuple[int, ...]) -> np.ndarray:
    """Return random numbers between 0 and 1 that depend on the names alone: float32 of this shape."""
    return np.random.default_rng(crc32("/".join(map(str, names)).encode())).random(shape, np.float32)


def draw_scores(backbone: str, method: str, name: str, where: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return scores like those of methods: a factor that a backbone's sets share (its weights) times one of the set."""
    return draw(backbone, where, shape=shape) * draw(backbone, method, name, where, shape=shape)


def score_groups(granularity: str, scores: dict[str, np.ndarray]) -> Iterator[pa.Table]:
    """Yield one table for each address, with every unit, in the columns of the contract."""
    for where, values in scores.items():
        place, index = parse_address(where), np.indices(values.shape, np.int32).reshape(values.ndim, -1)
        if granularity == "layer":
            yield pa.table({"layer": column(index[0].astype(np.int16)), "score": column(values)})
            continue
        columns = {
            "layer": column(np.full(values.size, place.layer, np.int16)),
            "projection": category(np.full(values.size, PARTS.index(place.projection)), PARTS),
            **dict(zip(GRANULARITIES[granularity].axes, map(column, index), strict=True)),
            "score": column(values.ravel()),
        }
        yield pa.table({**columns, **(_by_prompt(values) if granularity == "neuron" else {})})


def _by_prompt(values: np.ndarray) -> dict[str, pa.Array]:
    """Return the columns of ranks and importances, which are the same for each of a few prompts."""
    ranks = np.empty(values.size, np.int32)
    ranks[np.argsort(-values, kind="stable")] = np.arange(1, values.size + 1)
    ends = np.arange(values.size + 1, dtype=np.int32) * np.int32(PROMPTS)
    lists = {"ranks": ranks, "importances": values}
    return {
        name: pa.ListArray.from_arrays(column(ends), column(np.repeat(of_units, PROMPTS)))
        for name, of_units in lists.items()
    }
