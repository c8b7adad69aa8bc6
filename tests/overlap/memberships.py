"""Write regions to disk and count their memberships, for tests of overlaps."""

import numpy as np

from safety_regions.formats.region import Region, write_region
from safety_regions.formats.subspaces import Subspaces
from safety_regions.overlap.membership import count_membership
from tests.regions.small_regions import METADATA, SHAPES_OF, region_of


def write_regions(folder, regions):
    """Write regions, given by name; return name -> path."""
    for name, region in regions.items():
        write_region(folder / f"{name}.safetensors", region)
    return {name: folder / f"{name}.safetensors" for name in regions}


def draw_regions(seed, n, granularity="weight", scope="matrix", shapes=None):
    """Return n regions of random density that share a random core, so that every pattern can occur."""
    rng = np.random.default_rng(seed)
    shapes = shapes or SHAPES_OF[granularity]
    core = {where: rng.random(shape) < 0.2 for where, shape in shapes.items()}
    metadata = {**METADATA, "granularity": granularity, "scope": scope}
    densities = rng.choice([0.0, 0.1, 0.5, 1.0], n, p=[0.1, 0.4, 0.4, 0.1])
    drawn = [region_of(rng, density, shapes) for density in densities]
    shared = [density > 0 for density in densities]
    return {
        f"{chr(ord('a') + n - 1 - d)}{d}": Region.pack(
            {where: region.flags(where) | (core[where] & shared[d]) for where in shapes}, metadata
        )
        for d, region in enumerate(drawn)
    }


OUT = {"layers.0.q": 6, "layers.0.down": 5, "layers.2.q": 6, "layers.10.up": 9}
RANKS = {"layers.0.q": 6, "layers.0.down": 5, "layers.2.q": 6, "layers.10.up": 7}


def random_basis(rng, out, k):
    return np.linalg.qr(rng.normal(size=(out, k)))[0]


def subspaces_of(bases, name="a"):
    """Return a raw region of ranks with these bases at the addresses of `OUT`."""
    about = {
        "granularity": "rank",
        "scope": "matrix",
        "fraction": 0.5,
        "backbone": "tiny",
        "refinement": "raw",
    }
    return Subspaces.raw(bases, RANKS, {**about, "name": name})


def draw_subspaces(seed, sizes, names="abcdefgh"):
    """Return random regions of ranks of these dimensions at every address."""
    rng = np.random.default_rng(seed)
    return {
        name: subspaces_of({where: random_basis(rng, n, size) for where, n in OUT.items()}, name)
        for name, size in zip(names, sizes, strict=False)
    }


def membership_of(folder, regions):
    return count_membership(write_regions(folder, regions))
