"""Compute every IoU of a cell from its membership counts, with floor and ceiling, and the square matrix of pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def compute_overlap(
    membership: str | Path, regions: Mapping[str, str | Path], utility: Sequence[str],
    floors: int, kind: str, marginals: bool, halves: bool, contiguous: bool, output: str | Path, matrix: str | Path,
    samples: Mapping[str, str | Path] | None = None, removed: str | Path | None = None,
) -> None:  # fmt: skip
    """Write the overlaps of a cell with chance, floor and ceiling, and the pairs as a square matrix.

    Args:
        membership, regions: the counts, and name -> region file.
        utility, floors, kind, marginals, halves, contiguous, samples, removed: see `frame_overlap` and `Frame`.
    """
    from safety_regions.formats.contracts import OVERLAP
    from safety_regions.formats.parquet import write_table
    from safety_regions.overlap.frame import Frame, frame_overlap
    from safety_regions.overlap.gather import write_square_tsv
    from safety_regions.overlap.iou import iou_matrix
    from safety_regions.overlap.membership import read_membership, region_totals

    counted = read_membership(membership)
    frame = Frame(utility, floors, kind, marginals, halves, contiguous)
    overlap = frame_overlap(counted, regions, frame, samples, removed)
    write_table(output, overlap, OVERLAP, counted.metadata)
    sizes = region_totals(counted)
    write_square_tsv(matrix, list(sizes), iou_matrix(overlap, sizes))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, files, out = snakemake.params, snakemake.input, snakemake.output
        compute_overlap(
            membership=files.membership, regions=dict(zip(p.names, files.regions, strict=True)),
            utility=p.utility, floors=p.floors, kind=p.kind, marginals=p.marginals, halves=p.halves,
            contiguous=p.contiguous, output=out.overlap, matrix=out.matrix, removed=next(iter(files.removed), None),
            samples={Path(path).stem.removesuffix(".sample"): path for path in files.samples},
        )  # fmt: skip
