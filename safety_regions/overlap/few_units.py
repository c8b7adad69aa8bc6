"""Chance where a layer has few units: random regions of whole layers or heads, drawn unit by unit.

Laws of chance for weights and neurons take a region for many small, independent units. Heads and layers are few, and a
unit owns many weights: chance is therefore the mean over random regions of units, each as large as the given region
where the scope fixes sizes. The drawn units are expanded to numbers of weights, not to the weights themselves, so the
cost does not depend on the size of the matrices.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import comb

import numpy as np

from safety_regions.formats.expand import Blocks, Shapes, blocks_of
from safety_regions.formats.region import Region
from safety_regions.overlap.chance import DRAWS, strata
from safety_regions.units.granularity import GRANULARITIES

MOST = 100_000
FLAGS = 4_000_000
"""Draws are as many as give this number of flags of units, between `DRAWS` and `MOST`: IoUs of few units vary most."""


class FewUnits:
    """The units of a region, numbered over all its addresses, and the blocks of weights that they own.

    Args:
        region: of heads or layers.
        shapes: address -> (out, in) of every projection.
        removed: the raw region that a refinement subtracted from it; random regions have none of its units.
    """

    def __init__(self, region: Region, shapes: Shapes, removed: Region | None = None) -> None:
        self.region, self.shapes = region, shapes
        self.kind = GRANULARITIES[region.metadata["granularity"]]
        ends = np.cumsum([0, *region.units_at.values()])
        self.first = dict(zip(region.units_at, ends.tolist(), strict=False))
        self.inside = _joined(region)
        self.free = np.ones(self.inside.size, bool) if removed is None else ~_joined(removed)
        self.stratum = np.repeat(
            strata(region.metadata["scope"], list(region.units_at)), list(region.units_at.values())
        )

    def draws(self, seed: int, listed: bool = False) -> np.ndarray:
        """Random regions of as many units in every stratum, bool (draws, units).

        Args:
            seed: of the draws; with other seeds, they are independent.
            listed: take all such regions, each once, where one stratum has few of them.
        """
        ways = [
            (np.flatnonzero(self.free & (self.stratum == s)), int(self.inside[self.stratum == s].sum()))
            for s in np.unique(self.stratum)
        ]
        if listed and len(ways) == 1 and comb(len(ways[0][0]), ways[0][1]) <= DRAWS:
            chosen = [np.array(list(combinations(*ways[0])), int)]
        else:
            rng, draws = np.random.default_rng(seed), max(DRAWS, min(MOST, FLAGS // self.free.size))
            chosen = [units[rng.random((draws, units.size)).argsort(axis=1)[:, :n]] for units, n in ways]
        found = np.zeros((len(chosen[0]), self.free.size), bool)
        for units in chosen:
            np.put_along_axis(found, units, True, axis=1)
        return found

    def owned(self) -> Iterator[tuple[str, Blocks]]:
        """Address and blocks of every projection whose weights belong to such units; owners are numbers of units."""
        for where in self.shapes:
            home = self.kind.home(where)
            if home in self.first:
                blocks = blocks_of(self.kind, where, self.shapes, self.region.units_at[home])
                yield where, blocks._replace(owners=self.first[home] + blocks.owners)


def _joined(region: Region) -> np.ndarray:
    return np.concatenate([region.flags(where) for where in region.units_at])


def chance_of_truth(region: Region, removed: Region | None, truth: Mapping[str, np.ndarray]) -> float | None:
    """Return the mean IoU of random regions of units with planted weights; None if a union is empty.

    Args:
        region, removed: as in `FewUnits`.
        truth: address -> whether each weight (out, in) is planted.
    """
    few = FewUnits(region, {where: flags.shape for where, flags in truth.items()}, removed)
    drawn = few.draws(0, listed=True)
    both, size = np.zeros(len(drawn)), np.zeros(len(drawn))
    for where, blocks in few.owned():
        taken = drawn[:, blocks.owners].all(axis=2)
        both += taken @ blocks.sums(truth[where])
        size += taken.sum(axis=1) * (truth[where].size / len(blocks.owners))
    union = sum(int(flags.sum()) for flags in truth.values()) + size - both
    return float((both / union).mean()) if union.all() else None


def drawn_overlaps(regions: Sequence[Region], shapes: Shapes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the weights in all, and in any, of independent random regions: address -> two arrays (draws,).

    Args:
        regions: of the same heads, any sizes.
        shapes: address -> (out, in) of every projection. Addresses whose weights belong to no head are left out.
    """
    every = [FewUnits(region, shapes) for region in regions]
    drawn = [few.draws(seed) for seed, few in enumerate(every)]
    found = {}
    for where, blocks in every[0].owned():
        taken = np.array([one[:, blocks.owners].all(axis=2) for one in drawn])
        weights = shapes[where][0] * shapes[where][1] / len(blocks.owners)
        found[where] = taken.all(0).sum(axis=1) * weights, taken.any(0).sum(axis=1) * weights
    return found
