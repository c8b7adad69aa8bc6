"""Create small regions and score tables for tests, drawn by hypothesis or built from arrays."""

import re

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from safetensors.numpy import load_file

from safety_regions.formats.contracts import score_contract
from safety_regions.formats.parquet import write_groups
from safety_regions.formats.region import Region
from safety_regions.units.addresses import HEADS, LAYERS, address, parse_address
from safety_regions.units.granularity import GRANULARITIES
from tests.paths import ORACLES

# Sizes near a byte, and a layer above 9, so that names and numbers sort differently.
SHAPES = {
    "layers.0.q": (3, 5),
    "layers.0.k": (1, 8),
    "layers.0.down": (5, 3),
    "layers.2.q": (2, 1),
    "layers.10.v": (4, 4),
}
SHAPES_OF = {
    "weight": SHAPES,
    "neuron": {where: (shape[0] * shape[1],) for where, shape in SHAPES.items()},
    "head": {f"{LAYERS}.{layer}.{HEADS}": (n,) for layer, n in ((0, 4), (2, 4), (10, 9))},
    "layer": {LAYERS: (11,)},
}
METADATA = {"granularity": "weight", "scope": "matrix", "fraction": 0.5, "name": "a", "backbone": "tiny"}


def region_of(rng, density=0.4, shapes=SHAPES, **metadata):
    """Return a random region that contains every unit with probability ``density``."""
    flags = {where: rng.random(shape) < density for where, shape in shapes.items()}
    return Region.pack(flags, {**METADATA, **metadata})


def regions(**metadata):
    """Return a strategy for random regions over `SHAPES`, including empty and full ones."""
    seeds, densities = st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
    return st.builds(lambda s, d: region_of(np.random.default_rng(s), d, **metadata), seeds, densities)


def units(region):
    """Return the region as a set of (address, flat index)."""
    return {(where, int(i)) for where in region.shapes for i in np.flatnonzero(region.flags(where))}


def same(a, b):
    """Return whether two regions are equal in every field."""
    fields = (a.shapes, a.metadata, a.available) == (b.shapes, b.metadata, b.available)
    return fields and all(np.array_equal(a.masks[where], b.masks[where]) for where in a.shapes)


def score_rows(where, scores, keep):
    """Return rows of a score table: the units of one address where ``keep`` is true."""
    place, index = parse_address(where), np.nonzero(keep)
    n = len(index[0])
    granularity = (
        "layer"
        if not place.projection
        else "head"
        if place.projection == HEADS
        else {1: "neuron", 2: "weight"}[scores.ndim]
    )
    names = GRANULARITIES[granularity].axes
    columns = {name: i.astype(np.int32) for name, i in zip(names, index, strict=True)}
    if place.projection:
        projection = pa.array([place.projection] * n, pa.string())
        columns |= {"layer": np.full(n, place.layer, np.int16), "projection": projection}
    columns |= {"score": scores[keep].astype(np.float32)}
    contract = score_contract(granularity)
    others = {c.name: pa.nulls(n, c.type) for c in contract.columns if c.name not in columns}
    return pa.table({**columns, **others})


def write_scores(path, granularity, scores, kept, keep=None, groups=None, **more):
    """Write a score table of the arrays ``scores`` (address -> array); ``groups`` overrides its row groups."""
    keep = keep or {where: np.ones(s.shape, bool) for where, s in scores.items()}
    groups = groups or [score_rows(where, s, keep[where]) for where, s in scores.items()]
    shapes = {where: list(s.shape) for where, s in scores.items()}
    metadata = {
        "granularity": granularity,
        "shapes": shapes,
        "kept": kept,
        "name": "a",
        "backbone": "tiny",
        **more,
    }
    write_groups(path, groups, score_contract(granularity), metadata)
    return path


def oracle(name):
    """Return one file of the released code's results, by address."""
    found = {}
    for key, values in load_file(ORACLES / "llama" / f"{name}.safetensors").items():
        layer, projection = re.search(r"layers\.(\d+)\..*\.(\w+)_proj", key).groups()
        found[address(int(layer), projection)] = values
    return found
