"""What do all overlaps of ten large regions cost, and is the cost proportional to the number of bits?"""

import tempfile
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bench.masks import write_masks
from bench.measure import MIB, Figure, alone, require, seconds
from safety_regions.formats.region_file import RegionFile, count_bits
from safety_regions.overlap.iou import JOIN, compute_overlap
from safety_regions.overlap.membership import count_membership


class Sizes(NamedTuple):
    """Units of a region (smaller size first), layers, number of regions, their density, target in seconds."""

    units: tuple[int, ...] = (10**8, 10**9)
    layers: int = 24
    names: int = 10
    density: float = 0.05
    target: float = 10.0


FULL = Sizes()
TOY = Sizes((10_000, 40_000), 2, 4, 0.05, 10.0)


def run(sizes: Sizes = FULL) -> Iterator[Figure]:
    """Yield wall seconds, CPU seconds, wall time per bit and peak memory at each size."""
    for n_units in sizes.units:
        with tempfile.TemporaryDirectory() as folder:
            paths = write_masks(Path(folder), sizes.names, n_units, sizes.layers, sizes.density)
            check(paths)
            yield from _figures(paths, n_units == sizes.units[-1], sizes)


def _figures(paths: dict[str, Path], is_last: bool, sizes: Sizes) -> Iterator[Figure]:
    files = [RegionFile(path) for path in paths.values()]
    bits = sum(sum(file.available.values()) for file in files)
    read, cost = seconds(lambda: _read(paths.values()), 2), alone(dict, overlaps, paths)
    what = f"overlaps of {len(files)} regions of {bits / len(files):.1e} units, {{}}"
    goal = sizes.target if is_last else None
    yield Figure(
        what.format("wall time"), cost.wall, "s", read, "reading the files from memory", at_most=goal
    )
    yield Figure(what.format("CPU time"), cost.cpu, "s")
    yield Figure(what.format("wall time per bit"), 1e9 * cost.wall / bits, "ns", 1e9 * read / bits, "reading")
    yield Figure(
        what.format("peak memory of the process"),
        cost.whole / MIB,
        "MiB",
        (cost.whole - cost.peak) / MIB,
        "the imports",
        at_most=1024 if is_last else None,
    )


def overlaps(paths: dict[str, Path]) -> pa.Table:
    """Compute what two jobs compute: the membership of every unit, then the overlaps of all combinations."""
    return compute_overlap(count_membership(paths))


def check(paths: dict[str, Path]) -> None:
    """Raise ValueError unless intersections and unions of all pairs equal direct counts of their bits."""
    table = overlaps(paths).to_pandas()
    model = table[table["level"] == "model"].set_index("combination")
    files = {name: RegionFile(path) for name, path in paths.items()}
    both = dict.fromkeys(combinations(paths, 2), 0)
    either = dict(both)
    for where in next(iter(files.values())).shapes:
        masks = {name: file.mask(where) for name, file in files.items()}
        for a, b in both:
            both[a, b] += count_bits(masks[a] & masks[b])
            either[a, b] += count_bits(masks[a] | masks[b])
    for pair, n in both.items():
        row = model.loc[JOIN.join(sorted(pair))]
        require((row["intersection"], row["union"]) == (n, either[pair]), f"overlap of {' and '.join(pair)}")
    require(bool(np.isfinite(model["iou"]).all()), "an IoU is not a number")


def _read(paths: Iterable[Path]) -> None:
    """Read every byte, one mebibyte at a time, and discard it."""
    buffer = bytearray(MIB)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
