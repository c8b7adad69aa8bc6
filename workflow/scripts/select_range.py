"""The layers that a sweep settled on as a region."""

from pathlib import Path

from safety_regions.joblog import logged


def select_range(sweep: str | Path, output: str | Path) -> None:
    """Write the range of layers that the table of a sweep notes as a region."""
    from safety_regions.formats.region import write_region
    from safety_regions.methods.safelayer.selection import range_region

    write_region(output, range_region(sweep))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        select_range(snakemake.input.sweep, snakemake.output.region)
