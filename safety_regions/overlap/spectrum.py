"""Directions that the subspaces of several sets share: the spectrum of their mean projector.

    M = (P_1 + ... + P_k) / k

has eigenvalues from 0 to 1. One of 1 belongs to a direction within every subspace, one of 1/k to a direction within one
and orthogonal to all others; for k = 2 they are (1 ± cos) / 2 of the principal angles. They take the place of an IoU of
more than two regions, which subspaces do not have.

By chance: the mean of the same eigenvalues, largest first, over draws of independent uniform subspaces of the same
dimensions. Eigenvalues of wide matrices hardly differ between draws, so there are fewer draws of them.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from safety_regions.formats.columns import category, column
from safety_regions.formats.contracts import SPECTRUM
from safety_regions.formats.region_file import RegionFile
from safety_regions.overlap.membership import described
from safety_regions.units.addresses import MATRICES, parse_address

ENTRIES = 2_000
"""Ranks of all draws of a matrix together, at least one draw."""


def measure_spectrum(paths: Mapping[str, str | Path]) -> pa.Table:
    """Return the largest eigenvalues of the mean projector at each address: a `SPECTRUM` table.

    There are as many as the largest subspace has dimensions there.

    Args:
        paths: name -> region file of ranks.

    Raises:
        StudyError: a damaged file, or regions that cannot be compared.
    """
    files = [RegionFile(path) for path in paths.values()]
    available = described(dict(zip(paths, files, strict=True)))["available"]
    found, places = [], []
    for where in files[0].shapes:
        bases = [file.basis(where).astype(np.float64) for file in files]
        dimensions = tuple(sorted(basis.shape[1] for basis in bases))
        found.append((spectrum(bases), chance_spectrum(available[where], dimensions)))
        places.append(parse_address(where))
    counts = [len(own) for own, _ in found]
    columns = [
        column(np.repeat(np.array([place.layer for place in places], np.int16), counts)),
        category(np.repeat([MATRICES.index(place.projection) for place in places], counts), MATRICES),
        column(np.concatenate([np.arange(n, dtype=np.int32) for n in counts])),
        *(column(np.concatenate(part)) for part in zip(*found, strict=True)),
    ]
    return pa.Table.from_arrays(columns, schema=SPECTRUM.schema)


def spectrum(bases: list[np.ndarray]) -> np.ndarray:
    """Return the eigenvalues of the mean projector on the spans of orthonormal bases (out, i), largest first.

    As many as the largest basis has columns. They are the squared singular values of all bases side by side, over k.
    """
    n = max(basis.shape[1] for basis in bases)
    values = np.linalg.svd(np.concatenate(bases, axis=1), compute_uv=False) ** 2 / len(bases)
    return values[:n].clip(max=1)


@cache
def chance_spectrum(ranks: int, dimensions: tuple[int, ...]) -> np.ndarray:
    """Return the mean spectrum of random subspaces of these dimensions, of ``ranks`` in all, with a fixed seed."""
    rng, draws = np.random.default_rng(0), max(1, ENTRIES // max(ranks, 1))
    drawn = [
        spectrum([np.linalg.qr(rng.normal(size=(ranks, n)))[0] for n in dimensions]) for _ in range(draws)
    ]
    return np.mean(drawn, axis=0)
