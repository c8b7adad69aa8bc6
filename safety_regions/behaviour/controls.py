"""Control regions: other units, as many of them as the region has in every scope unit in which it was selected.

An effect of a region means something only beside that of controls of the same size: random regions are not neutral, and
methods choose large weights, whose change moves any model more.

============  ======================================================================================================
``random``    units drawn at random; for layers, another range of as many layers; for ranks, a random subspace
``matched``   drawn at random with the same histogram of weight magnitudes (deciles) in each matrix; of heads, in each
              layer, with fewer bins, so that each has at least `FEWEST` heads
``magnitude`` the units of the largest norm
``change``    the units that alignment changed most: the largest norm of the difference from the base model
``part``      a random part of the region itself, as large as another region in every scope unit
============  ======================================================================================================

A unit's norm is |w| of a weight, and the Euclidean norm of a neuron's, a head's or a layer's weights. Weights that
several heads share (rows of k and v) are in no head's norm. Controls of heads have as many heads, but can have other
numbers of these shared weights.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from math import comb
from zlib import crc32

import numpy as np

from safety_regions.errors import StudyError, explain
from safety_regions.formats.expand import Shapes, blocks_of
from safety_regions.formats.region import Region
from safety_regions.formats.subspaces import AnyRegion, Subspaces
from safety_regions.units.addresses import LAYERS, STRATA
from safety_regions.units.behaviour import CHANGE, DRAWN, MAGNITUDE, MATCHED, RANDOM
from safety_regions.units.granularity import GRANULARITIES, MATRIX, ROW

BINS = 10
FEWEST = 8
"""Units of a bin, where a layer has few of them. With fewer than 16 heads in a layer there is one bin."""
SAMPLE = 100_000
"""Magnitudes of a matrix that the borders of its bins are computed from."""
MOST_SETS = 20_000
"""Sets of layers that are listed; beyond, they are drawn."""

Arrays = Mapping[str, np.ndarray]


class Maker:
    """Makes the controls of one region that need no other region.

    Args:
        region: the region.
        weights: returns the weights of a projection, (out, in).
        before: returns those before alignment, for the control ``change``.
        shapes: address -> (out, in) of every projection of the backbone.
    """

    def __init__(
        self,
        region: AnyRegion,
        weights: Callable[[str], np.ndarray],
        before: Callable[[str], np.ndarray],
        shapes: Shapes,
    ) -> None:
        self.region, self._weights = region, weights
        self._magnitude = norms_of(region, weights, shapes)
        self._change = norms_of(region, lambda where: weights(where) - before(where), shapes)

    def make(self, kind: str, draw: int) -> AnyRegion:
        """The control of a kind, or one of its draws (from 1)."""
        if isinstance(self.region, Subspaces):
            return random_subspaces(self.region, self._weights, draw)
        if kind == RANDOM:
            return random_region(self.region, draw)
        if kind == MATCHED:
            return matched_region(self.region, self._magnitude, draw)
        return largest(self.region, {MAGNITUDE: self._magnitude, CHANGE: self._change}[kind])


def random_region(region: Region, draw: int) -> Region:
    """As many units in every scope unit, drawn at random; ``draw`` is the seed.

    For layers: one of `layer_sets`, each draw another one.
    """
    if _kind(region).whole_layers:
        chosen = layer_sets(region.flags(LAYERS))[draw - 1]
        flags = np.zeros(region.shapes[LAYERS], bool)
        flags[list(chosen)] = True
        return _like(region, {LAYERS: flags})
    return largest(region, _Uniform(region, "random", draw))


def random_subspaces(region: Subspaces, weights: Callable[[str], np.ndarray], draw: int) -> Subspaces:
    """Subspaces of the same dimensions, uniform among those of each matrix's outputs; ``draw`` is the seed.

    Args:
        weights: returns the weights of a projection, (out, in), of full rank.
    """
    found = {}
    for where, basis in region.bases.items():
        (out, n), ranks = basis.shape, region.units_at[where]
        drawn = np.linalg.qr(_generator(region, where, RANDOM, draw).normal(size=(ranks, n)))[0]
        if ranks < out:  # more outputs than inputs: the columns span a part of the outputs
            drawn = np.linalg.qr(weights(where).astype(float))[0] @ drawn
        found[where] = drawn.astype(np.float32)
    return replace(region, bases=found)


def layer_sets(inside: np.ndarray) -> list[tuple[int, ...]]:
    """Sets of as many other layers in a seeded random order; ranges of neighbours if the region is one.

    Args:
        inside: whether each layer belongs to the region, bool (L,).
    """
    own, n = tuple(np.flatnonzero(inside).tolist()), inside.size
    if own == tuple(range(own[0], own[0] + len(own))):
        found = [tuple(range(start, start + len(own))) for start in range(n - len(own) + 1)]
    elif comb(n, len(own)) <= MOST_SETS:
        found = list(combinations(range(n), len(own)))
    else:
        rng = np.random.default_rng(0)
        drawn = (rng.choice(n, len(own), replace=False) for _ in range(MOST_SETS))
        found = list({tuple(sorted(layers.tolist())) for layers in drawn})
    others = sorted(set(found) - {own})
    return [others[i] for i in np.random.default_rng(0).permutation(len(others))]


def n_draws(region: AnyRegion, kind: str, asked: int) -> int:
    """How many different draws of a control there are, at most ``asked``; there may be few other ranges of layers.

    Weights of whole layers have no matched control: every layer has the same histogram of its own. Ranks have no units
    of their own size or change, and so no control but random ones.
    """
    if isinstance(region, Subspaces):
        return asked if kind == RANDOM and region.n_selected else 0
    if not region.n_selected or (kind == MATCHED and _kind(region).whole_layers):
        return 0
    if kind not in DRAWN:
        return 1
    return min(asked, len(layer_sets(region.flags(LAYERS)))) if _kind(region).whole_layers else asked


def matched_region(region: Region, norms: Arrays, draw: int) -> Region:
    """Units drawn at random in each matrix, with the region's histogram of norms (deciles of the matrix)."""
    found = {}
    for where in region.shapes:
        inside, norm = region.flags(where).ravel(), norms[where].ravel()
        bins = max(1, min(BINS, norm.size // FEWEST)) if _kind(region).few else BINS
        borders = np.quantile(norm[:: max(1, norm.size // SAMPLE)], np.arange(1, bins) / bins)
        bin_of = np.searchsorted(borders, norm, side="right")
        rng, flags = _generator(region, where, MATCHED, draw), np.zeros(norm.size, bool)
        for number, count in enumerate(np.bincount(bin_of[inside])):
            if count:
                members = np.flatnonzero(bin_of == number)
                flags[rng.choice(members, count, replace=False, shuffle=False)] = True
        found[where] = flags.reshape(region.shapes[where])
    return _like(region, found)


def part_of(region: Region, smaller: Region, draw: int) -> Region:
    """Units of the region drawn at random, as many in every scope unit as another region has there.

    Raises:
        StudyError: the region has too few of them in a scope unit.
    """
    uniform = _Uniform(region, "part", draw)
    keys = {where: np.where(region.flags(where), uniform[where], -1.0) for where in region.shapes}
    found = largest(smaller, keys)
    if any((found.flags(where) & ~region.flags(where)).any() for where in found.shapes):
        raise StudyError(explain("part of a region", "fewer units than asked for in a scope unit", "enough"))
    return found


def largest(region: Region, keys: Arrays) -> Region:
    """In every scope unit, as many units as the region has there: those with the largest keys.

    Args:
        region: its granularity, scope and sizes are taken over.
        keys: address -> key of every unit, in the address's shape; read once for each address.
    """
    scope = region.metadata["scope"]
    if scope == ROW:
        return _like(region, {w: _largest_of_rows(region.flags(w), keys[w]) for w in region.shapes})
    stratum = STRATA.get(scope, STRATA[MATRIX])
    groups: dict[object, list[str]] = {}
    for where in region.shapes:
        groups.setdefault(stratum(where), []).append(where)
    found: dict[str, np.ndarray] = {}
    for addresses in groups.values():
        k = sum(region.selected_at[where] for where in addresses)
        joined = np.concatenate([np.asarray(keys[where]).ravel() for where in addresses])
        flags = np.zeros(joined.size, bool)
        if k:
            flags[np.argpartition(joined, joined.size - k)[joined.size - k :]] = True
        ends = np.cumsum([region.units_at[where] for where in addresses])[:-1]
        for where, part in zip(addresses, np.split(flags, ends), strict=True):
            found[where] = part.reshape(region.shapes[where])
    return _like(region, {where: found[where] for where in region.shapes})


def _largest_of_rows(inside: np.ndarray, keys: np.ndarray) -> np.ndarray:
    counts = inside.sum(axis=1)
    most, flags = int(counts.max(initial=0)), np.zeros(inside.shape, bool)
    if most:
        best = np.argpartition(keys, inside.shape[1] - most, axis=1)[:, inside.shape[1] - most :]
        if (counts < most).any():
            order = np.argsort(-np.take_along_axis(keys, best, axis=1), axis=1)
            best = np.take_along_axis(best, order, axis=1)
        np.put_along_axis(flags, best, np.arange(most) < counts[:, None], axis=1)
    return flags


def norms_of(region: Region, weights: Callable[[str], np.ndarray], shapes: Shapes) -> Arrays:
    """The norm of every unit of the region's granularity: address -> float32, computed when it is read.

    Args:
        weights: returns the weights (or their change) of a projection, (out, in).
        shapes: address -> (out, in) of every projection of the backbone.
    """
    return _Norms(region, weights, shapes)


class _Norms(Mapping):
    def __init__(self, region: Region, weights: Callable[[str], np.ndarray], shapes: Shapes) -> None:
        self._region, self._weights, self._shapes = region, weights, shapes

    def __getitem__(self, where: str) -> np.ndarray:
        kind, shape = _kind(self._region), self._region.shapes[where]
        if len(shape) == 2:
            return np.abs(self._weights(where))
        squares = np.zeros(shape)
        for projection in self._shapes:
            if kind.home(projection) == where:
                blocks = blocks_of(kind, projection, self._shapes, squares.size)
                if blocks.owners.shape[1] == 1:
                    squares[blocks.owners[:, 0]] += blocks.sums(
                        np.square(self._weights(projection), dtype=float)
                    )
        return np.sqrt(squares)

    def __iter__(self) -> Iterator[str]:
        return iter(self._region.shapes)

    def __len__(self) -> int:
        return len(self._region.shapes)


class _Uniform(Mapping):
    """address -> independent uniform numbers in the address's shape, drawn when they are read."""

    def __init__(self, region: Region, what: str, draw: int) -> None:
        self._region, self._what, self._draw = region, what, draw

    def __getitem__(self, where: str) -> np.ndarray:
        rng = _generator(self._region, where, self._what, self._draw)
        return rng.random(self._region.shapes[where], dtype=np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._region.shapes)

    def __len__(self) -> int:
        return len(self._region.shapes)


def _generator(region: AnyRegion, where: str, what: str, draw: int) -> np.random.Generator:
    """Random numbers of one address, independent between sets: means over the regions of several sets need that."""
    return np.random.default_rng((draw, crc32(f"{what} {region.metadata.get('name', '')} {where}".encode())))


def _kind(region: Region):
    return GRANULARITIES[region.metadata["granularity"]]


def _like(region: Region, flags: Mapping[str, np.ndarray]) -> Region:
    return Region.pack(flags, region.metadata)
