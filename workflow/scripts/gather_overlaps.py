"""Collect all overlaps of the grid in one table, and all region sizes in another."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def gather_overlaps(
    cells: Sequence[Sequence[str]],
    overlaps: Sequence[str | Path],
    memberships: Sequence[str | Path],
    iou: str | Path,
    sizes: str | Path,
) -> None:
    """Write both tables, with one cell in memory at a time.

    Args:
        cells: backbone, method, selection and refinement of each of ``overlaps`` and ``memberships``.
        iou, sizes: output files.
    """
    from safety_regions.formats.contracts import IOU, REGION_SIZES
    from safety_regions.formats.parquet import write_groups
    from safety_regions.overlap import gather

    known = [tuple(cell) for cell in cells]
    write_groups(iou, gather.gather_overlaps(dict(zip(known, overlaps, strict=True))), IOU)
    write_groups(sizes, gather.gather_sizes(dict(zip(known, memberships, strict=True))), REGION_SIZES)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        files, out = snakemake.input, snakemake.output
        gather_overlaps(
            cells=snakemake.params.cells, overlaps=files.overlaps, memberships=files.memberships, iou=out.iou,
            sizes=out.sizes,
        )  # fmt: skip
