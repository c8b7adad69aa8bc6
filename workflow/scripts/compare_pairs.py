"""Compare the regions of pairs of names: blocks of prompts, or prompts with the responses of another set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def compare_pairs(
    regions: Mapping[str, str | Path],
    pairs: Sequence[Mapping],
    table: str,
    cell: Mapping[str, str],
    output: str | Path,
) -> None:
    """Write one row for each pair of regions, over the whole model; `overlap.pairs.compare_pairs` describes the pairs.

    Args:
        regions: name -> region file.
        table: name of the table's contract in `formats.contracts`, e.g. ``SAMPLE_SIZES``.
        cell: backbone, method, selection and refinement, for the metadata.
    """
    from safety_regions.formats import contracts
    from safety_regions.formats.parquet import write_table
    from safety_regions.overlap import pairs as overlaps

    write_table(output, overlaps.compare_pairs(regions, pairs), getattr(contracts, table), dict(cell))


if __name__ == "__main__":
    from safety_regions.formats.region import region_files

    with logged(snakemake.log[0]):
        p, out = snakemake.params, snakemake.output
        regions = region_files(p.names, snakemake.input.regions)
        compare_pairs(regions, p.pairs, p.table, dict(snakemake.wildcards), out.pairs)
