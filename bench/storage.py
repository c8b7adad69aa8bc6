"""What do keeping, storing and selecting the best weights cost, in seconds and in bytes?"""

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.masks import METADATA, shapes
from bench.measure import Figure, require, seconds
from safety_regions.formats.contracts import WEIGHT_SCORES
from safety_regions.formats.parquet import write_groups
from safety_regions.formats.region import Region, read_region, write_region
from safety_regions.regions.select import select_region
from safety_regions.scoring.keep import Scored, as_table, keep_top
from safety_regions.units.fractions import scope_count
from safety_regions.units.granularity import GRANULARITIES


class Sizes(NamedTuple):
    """Number of weights, number of layers, and the fraction kept of each row."""

    units: int = 10**8
    layers: int = 8
    fraction: float = 0.05


FULL = Sizes()
TOY = Sizes(20_000, 2)


def run(sizes: Sizes = FULL) -> Iterator[Figure]:
    """Yield seconds and bytes of each step from scores to a region file."""
    where = shapes(sizes.units, sizes.layers)
    scores = Drawn(where)
    n = sum(map(math.prod, where.values()))
    kept = sum(rows * scope_count(sizes.fraction, columns) for rows, columns in where.values())
    what = f"{n:.1e} weights, {sizes.fraction:.0%} of each row: {{}}"
    with tempfile.TemporaryDirectory() as folder:
        table, region = Path(folder) / "scores.parquet", Path(folder) / "region.safetensors"
        storing = seconds(lambda: store(table, scores, where, sizes.fraction)) - scores.spent
        once = seconds(lambda: [float(values.sum()) for _, values in scores()]) - scores.spent
        found: list[Region] = []
        selecting = seconds(lambda: found.append(select_region(table, "row", sizes.fraction)))
        writing = seconds(lambda: write_region(region, found[0]))
        check(found[0], read_region(region), scores, sizes.fraction)
        each, unit = 1e8 / n, "s per 1e8"
        yield Figure(
            what.format("keep and store"), each * storing, unit, each * once, "reading the scores once"
        )
        yield Figure(what.format("select the region"), each * selecting, unit)
        yield Figure(what.format("write the region"), each * writing, unit)
        share = kept / n
        least = -math.log2(share) - (1 - share) / share * math.log2(1 - share)
        yield Figure(
            what.format("bytes per stored score"),
            table.stat().st_size / kept,
            "B",
            4 + least / 8,
            "uncompressed float32, and the entropy of its index",
        )
        yield Figure(
            what.format("bits of a region per weight"),
            8 * region.stat().st_size / n,
            "bit",
            least * share,
            "the entropy of a random region",
        )


class Drawn:
    """Random positive scores, address by address, the same in every pass.

    Attributes:
        spent: seconds that drawing the scores took in the last pass; `run` subtracts them.
    """

    def __init__(self, where: dict[str, tuple[int, int]]) -> None:
        self.where, self.spent = where, 0.0

    def __call__(self) -> Iterator[tuple[str, Tensor]]:
        self.spent = 0.0
        for seed, (address, shape) in enumerate(self.where.items()):
            start = time.perf_counter()
            drawn = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
            self.spent += time.perf_counter() - start
            yield address, drawn


def store(path: Path, scored: Scored, shapes: Mapping[str, Sequence[int]], fraction: float) -> None:
    """Store scores of weights as a scoring job does: write the best of each row to a file."""
    kept = {"row": fraction}
    metadata = {**METADATA, "name": "a", "kept": kept, "shapes": {a: list(s) for a, s in shapes.items()}}
    groups = (as_table(GRANULARITIES["weight"], *one) for one in keep_top(scored, kept))
    write_groups(path, groups, WEIGHT_SCORES, metadata)


def check(selected: Region, stored: Region, scores: Drawn, fraction: float) -> None:
    """Raise ValueError unless each row of the region holds its best weights, and the file holds the region."""
    for where, values in scores():
        flags, array = selected.flags(where), values.numpy()
        k = scope_count(fraction, array.shape[1])
        worst = np.where(flags, array, np.inf).min(1)
        best_left = np.where(flags, -np.inf, array).max(1)
        require(bool((flags.sum(1) == k).all()), f"a row of {where} does not have {k} weights")
        require(bool((worst >= best_left).all()), f"a row of {where} left out a better weight")
        require(
            bool((stored.masks[where] == selected.masks[where]).all()),
            f"the file differs from the region at {where}",
        )
