"""The layers from the onset of the gap to its plateau as a region."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.region import write_region
    from safety_regions.methods.safelayer.selection import gap_region

    write_region(snakemake.output.region, gap_region(snakemake.input.scores))
