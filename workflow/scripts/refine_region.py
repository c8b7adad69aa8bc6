"""Subtract a utility region from a region."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.region import read_region, write_region
    from safety_regions.regions.refine import subtract_region

    region, utility = read_region(snakemake.input.region), read_region(snakemake.input.utility)
    write_region(snakemake.output.region, subtract_region(region, utility))
