"""Compare regions of equal size of all methods on one backbone and dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def compare_methods(
    scores: Mapping[str, str | Path],
    adapter: Sequence[str | Path],
    family: str,
    fraction: float,
    output: str | Path,
    matrix: str | Path,
) -> None:
    """Write the overlaps of the best ``fraction`` (0-1) of all methods, as weights, and their square matrix.

    Args:
        scores: method -> its score table; ``adapter``: the files of the adapter, empty if no method scores it.
    """
    from safety_regions.formats.contracts import OVERLAP
    from safety_regions.formats.parquet import read_metadata, write_table
    from safety_regions.overlap.between_methods import best_region, overlap_of_methods
    from safety_regions.overlap.gather import write_square_tsv
    from safety_regions.overlap.iou import iou_matrix
    from safety_regions.overlap.membership import region_totals
    from safety_regions.regions.lora_factors import read_factors

    shapes = read_metadata(next(iter(scores.values())))["weight_shapes"]
    factors = read_factors(adapter, family, shapes)
    regions = {label: best_region(path, fraction) for label, path in scores.items()}
    membership, overlap = overlap_of_methods(regions, shapes, factors)
    sizes = region_totals(membership)
    write_table(output, overlap, OVERLAP, membership.metadata)
    write_square_tsv(matrix, list(sizes), iou_matrix(overlap, sizes))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, files, out = snakemake.params, snakemake.input, snakemake.output
        compare_methods(
            scores=dict(zip(p.methods, files.scores, strict=True)), adapter=files.adapter, family=p.family,
            fraction=p.fraction, output=out.overlap, matrix=out.matrix,
        )  # fmt: skip
