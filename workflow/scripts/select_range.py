"""The layers that a sweep settled on as a region."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.region import write_region
    from safety_regions.methods.safelayer.selection import range_region

    write_region(snakemake.output.region, range_region(snakemake.input.sweep))
