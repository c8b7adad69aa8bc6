"""Count, for each matrix, the units with each pattern of membership in the regions of a cell."""

from collections.abc import Mapping
from pathlib import Path

from safety_regions.joblog import logged


def count_membership(regions: Mapping[str, str | Path], output: str | Path) -> None:
    """Write the membership counts of ``regions`` (name -> region file)."""
    from safety_regions.formats.contracts import MEMBERSHIP
    from safety_regions.formats.parquet import write_table
    from safety_regions.overlap import membership

    counted = membership.count_membership(regions)
    write_table(output, counted.table, MEMBERSHIP, counted.metadata)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        regions = dict(zip(snakemake.params.names, snakemake.input.regions, strict=True))
        count_membership(regions, snakemake.output.membership)
