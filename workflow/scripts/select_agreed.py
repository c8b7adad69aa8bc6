"""Keep the neurons on which enough prompts agree as a region."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.region import write_region
    from safety_regions.methods.safeneuron.selection import select_agreed
    from safety_regions.units.selections import parse_agreement

    agreement = parse_agreement(snakemake.wildcards.selection)
    region = select_agreed(snakemake.input.scores, *agreement, allow_empty=snakemake.params.allow_empty)
    write_region(snakemake.output.region, region)
