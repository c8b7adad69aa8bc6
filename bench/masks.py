"""Write synthetic regions as large as those of a real checkpoint, quickly."""

import math
from pathlib import Path

import numpy as np

from safety_regions.formats.region import Region, write_region
from safety_regions.units.addresses import PROJECTIONS, address

METADATA = {"granularity": "weight", "backbone": "synthetic", "scope": "row", "refinement": "raw"}
# Rows and columns of a projection's weight, in units of the hidden size; the intermediate size is 2.75 times that.
SHAPES = dict.fromkeys(PROJECTIONS, (1, 1)) | {"gate": (2.75, 1), "up": (2.75, 1), "down": (1, 2.75)}
UNITS = sum(rows * columns for rows, columns in SHAPES.values())


def shapes(n_units: int, layers: int) -> dict[str, tuple[int, int]]:
    """Return the shapes of a Llama's projections with about ``n_units`` weights: address -> (out, in)."""
    hidden = max(8, 8 * round(math.sqrt(n_units / layers / UNITS) / 8))
    return {
        address(layer, projection): (int(rows * hidden), int(columns * hidden))
        for layer in range(layers)
        for projection, (rows, columns) in SHAPES.items()
    }


def write_masks(folder: Path, names: int, n_units: int, layers: int, density: float) -> dict[str, Path]:
    """Write regions of independent units, each selected with probability ``density``; return name -> file."""
    paths = {f"r{d}": folder / f"r{d}.safetensors" for d in range(names)}
    where = shapes(n_units, layers)
    for seed, (name, path) in enumerate(paths.items()):
        draw = np.random.default_rng(seed)
        masks = {a: _random_bytes(draw, math.prod(shape) // 8, density) for a, shape in where.items()}
        metadata = {**METADATA, "fraction": density, "name": name}
        write_region(path, Region(masks, where, metadata, {a: math.prod(s) for a, s in where.items()}))
    return paths


def _random_bytes(draw: np.random.Generator, n: int, density: float) -> np.ndarray:
    """Return bytes whose bits are set with probability ``density``; 16 random bits look up each byte in a table."""
    bits = np.bitwise_count(np.arange(256, dtype=np.uint8)).astype(int)
    probability = density**bits * (1 - density) ** (8 - bits)
    ends = np.round(probability.cumsum() * 2**16).astype(int)
    lookup = np.repeat(np.arange(256, dtype=np.uint8), np.diff(ends, prepend=0))
    return lookup[draw.integers(0, 2**16, n, np.uint16)]
