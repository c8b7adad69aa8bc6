"""Compute every IoU of a cell from its membership counts, with floor and ceiling, and the square matrix of pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def compute_overlap(
    membership: str | Path, regions: Mapping[str, str | Path], shared: str | Path, utility: Sequence[str],
    floors: int, kind: str, marginals: bool, halves: bool, contiguous: bool, output: str | Path, matrix: str | Path,
) -> None:  # fmt: skip
    """Write the overlaps of a cell with chance, floor and ceiling, and the pairs as a square matrix.

    Args:
        membership, regions, shared: the counts, name -> region file, and the table of shared prompts.
        utility, floors, kind, marginals, halves, contiguous: see `frame_overlap` and `Frame`.
    """
    from safety_regions.formats.contracts import OVERLAP, SHARED_PROMPTS
    from safety_regions.formats.parquet import read_table, write_table
    from safety_regions.overlap.frame import Frame, frame_overlap
    from safety_regions.overlap.gather import write_square_tsv
    from safety_regions.overlap.iou import iou_matrix
    from safety_regions.overlap.membership import read_membership, region_totals, used_prompts
    from safety_regions.overlap.prompts import with_prompts

    counted = read_membership(membership)
    overlap = frame_overlap(counted, regions, Frame(utility, floors, kind, marginals, halves, contiguous))
    used = counted.metadata["prompts"] | used_prompts({name: regions[name] for name in utility})
    overlap = with_prompts(overlap, used, read_table(shared, SHARED_PROMPTS))
    write_table(output, overlap, OVERLAP, counted.metadata)
    sizes = region_totals(counted)
    write_square_tsv(matrix, list(sizes), iou_matrix(overlap, sizes))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, files, out = snakemake.params, snakemake.input, snakemake.output
        compute_overlap(
            membership=files.membership, regions=dict(zip(p.names, files.regions, strict=True)),
            shared=files.shared, utility=p.utility, floors=p.floors, kind=p.kind, marginals=p.marginals,
            halves=p.halves, contiguous=p.contiguous, output=out.overlap, matrix=out.matrix,
        )  # fmt: skip
