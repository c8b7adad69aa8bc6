"""Compare what more and more sets have in common with shuffled statistics and with regrouped prompts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def compare_cores(
    regions: Mapping[str, str | Path], groups: Sequence[Mapping], cell: Mapping[str, str], output: str | Path
) -> None:
    """Write one row for each group and number of regions, over the whole model.

    Args:
        regions: name -> region file; ``groups``: see `overlap.cores.compare_cores`.
        cell: backbone, method, selection and refinement, for the metadata.
    """
    from safety_regions.formats.contracts import CORES
    from safety_regions.formats.parquet import write_table
    from safety_regions.overlap import cores

    write_table(output, cores.compare_cores(regions, groups), CORES, {**cell, "groups": groups})


if __name__ == "__main__":
    from safety_regions.formats.region import region_files

    with logged(snakemake.log[0]):
        p, cell = snakemake.params, dict(snakemake.wildcards)
        regions = region_files(p.names, snakemake.input.regions)
        compare_cores(regions=regions, groups=p.groups, cell=cell, output=snakemake.output.cores)
