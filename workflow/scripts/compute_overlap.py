"""Compute every IoU of a cell from what was counted, with its references, and the square matrix of pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged

Paths = Mapping[str, str | Path]


def compute_overlap(
    membership: str | Path, regions: Paths, shared: str | Path, frame: dict, samples: Paths,
    removed: Sequence[str | Path], labels: Paths, cell: Mapping[str, str], output: str | Path, matrix: str | Path,
) -> None:  # fmt: skip
    """Write the overlaps of a cell with all references, and the pairs as a square matrix.

    ``membership``, ``regions``, ``shared``: counts, name -> region file, shared prompts; ``frame``: of `Frame`;
    ``samples``, ``removed``: see `frame_overlap`; ``labels``: pool -> IoUs of its splits; ``cell``: of the table."""
    from safety_regions.formats.contracts import LABELS, OVERLAP, SHARED_PROMPTS
    from safety_regions.formats.parquet import read_table, read_tables, write_table
    from safety_regions.overlap.frame import Frame, frame_overlap
    from safety_regions.overlap.gather import write_square_tsv
    from safety_regions.overlap.iou import iou_matrix
    from safety_regions.overlap.labels import add_permutations
    from safety_regions.overlap.membership import region_totals, used_prompts
    from safety_regions.overlap.prompts import with_prompts
    from safety_regions.overlap.subspaces import read_counted

    counted = read_counted(membership)
    overlap = frame_overlap(counted, regions, Frame(**frame), samples, next(iter(removed), None))
    utility = used_prompts({name: regions[name] for name in frame.get("utility", ())})
    overlap = with_prompts(overlap, counted.metadata["prompts"] | utility, read_table(shared, SHARED_PROMPTS))
    overlap = add_permutations(overlap, dict(read_tables(labels, LABELS)), cell)
    write_table(output, overlap, OVERLAP, counted.metadata)
    sizes = region_totals(counted)
    write_square_tsv(matrix, list(sizes), iou_matrix(overlap, sizes))


if __name__ == "__main__":
    from safety_regions.formats.files import named_files
    from safety_regions.formats.region import region_files

    with logged(snakemake.log[0]):
        p, files, out = snakemake.params, snakemake.input, snakemake.output
        compute_overlap(
            membership=files.membership, regions=region_files(p.names, files.regions), shared=files.shared,
            samples=named_files(p.correlated, files.samples, ".sample.parquet"), removed=files.removed,
            labels=dict(zip(p.pools, files.labels, strict=True)), frame=p.frame, cell=dict(snakemake.wildcards),
            output=out.overlap, matrix=out.matrix,
        )  # fmt: skip
