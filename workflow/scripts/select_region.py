"""Keep the best fraction of the scores within each scope as a region."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.region import write_region
    from safety_regions.regions.select import select_region
    from safety_regions.units.selections import parse_selection

    scope, fraction = parse_selection(snakemake.wildcards.selection)
    region = select_region(snakemake.input.scores, scope, fraction, allow_empty=snakemake.params.allow_empty)
    write_region(snakemake.output.region, region)
