"""Overlaps of chosen pairs of names over the whole model: growing pools, blocks of prompts, crossed responses."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from safety_regions.formats.region_file import RegionFile
from safety_regions.overlap.iou import overlap_of_pairs

COUNTS = ("intersection", "union", "iou", "smallest", "largest", "chance")


def compare_pairs(paths: Mapping[str, str | Path], pairs: Sequence[Mapping]) -> pa.Table:
    """Return one row per pair, in order, with the columns that `contracts.POOLS`, `SAMPLE_SIZES` and `CROSSED` share.

    Args:
        paths: name -> region file.
        pairs: names ``a`` and ``b``; all other entries of a pair become columns too.

    Raises:
        StudyError: a region is damaged or cannot be compared with the others.
    """
    overlap = overlap_of_pairs(paths, [(pair["a"], pair["b"]) for pair in pairs], [None] * len(pairs))
    overlap = overlap.filter(pc.equal(overlap["level"].cast(pa.string()), "model")).select(COUNTS)
    prompts = {name: RegionFile(path).metadata["samples_used"] for name, path in paths.items()}
    given = [{**pair, "n_a": prompts[pair["a"]], "n_b": prompts[pair["b"]]} for pair in pairs]
    named = pa.Table.from_pylist(given)
    return pa.table(
        {
            **dict(zip(named.column_names, named.columns, strict=True)),
            **dict(zip(COUNTS, overlap.columns, strict=True)),
        }
    )


def compare_pools(
    paths: Mapping[str, str | Path],
    steps: Sequence[Mapping],
    shuffled: Sequence[tuple[str, str]],
    nested: bool,
) -> pa.Table:
    """Return one row per step, in order: a `contracts.POOLS` table.

    Args:
        paths: name -> region file.
        steps: as the pairs of `compare_pairs`.
        shuffled: the names a and b of each step with shuffled members; empty if there are none.
        nested: whether the regions of growing pools are subsets of each other by construction.

    Raises:
        StudyError: as `compare_pairs`.
    """
    ious = pa.nulls(len(steps), pa.float64())
    if shuffled:
        ious = _compare_named(paths, [{"a": a, "b": b} for a, b in shuffled])["iou"]
    table = _compare_named(paths, steps).append_column("shuffled", ious)
    return table.append_column("nested", pa.array([nested] * len(steps)))


def _compare_named(paths: Mapping[str, str | Path], pairs: Sequence[Mapping]) -> pa.Table:
    """`compare_pairs` with those of the paths that the pairs name."""
    names = dict.fromkeys(pair[place] for pair in pairs for place in "ab")
    return compare_pairs({name: paths[name] for name in names}, pairs)
