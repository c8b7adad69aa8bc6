"""Subtract a utility region from a region."""

from pathlib import Path

from safety_regions.joblog import logged


def refine_region(region: str | Path, utility: str | Path, output: str | Path) -> None:
    """Write the region at ``region`` without the units of the region at ``utility``."""
    from safety_regions.formats.region import read_region, write_region
    from safety_regions.regions.refine import subtract_region

    write_region(output, subtract_region(read_region(region), read_region(utility)))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        refine_region(snakemake.input.region, snakemake.input.utility, snakemake.output.region)
