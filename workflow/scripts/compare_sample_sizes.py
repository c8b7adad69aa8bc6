"""Compare regions that were found with blocks of 10, 25, ... prompts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def compare_sample_sizes(
    regions: Mapping[str, str | Path], pairs: Sequence[Mapping], cell: Mapping[str, str], output: str | Path
) -> None:
    """Write one row for each pair of regions, over the whole model; `compare_pairs` describes the pairs.

    Args:
        regions: name -> region file.
        cell: backbone, method, selection and refinement, for the metadata.
    """
    from safety_regions.formats.contracts import SAMPLE_SIZES
    from safety_regions.formats.parquet import write_table
    from safety_regions.overlap.pairs import compare_pairs

    write_table(output, compare_pairs(regions, pairs), SAMPLE_SIZES, dict(cell))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        regions = dict(zip(snakemake.params.names, snakemake.input.regions, strict=True))
        pairs, cell = snakemake.params.pairs, dict(snakemake.wildcards)
        compare_sample_sizes(regions=regions, pairs=pairs, cell=cell, output=snakemake.output.pairs)
