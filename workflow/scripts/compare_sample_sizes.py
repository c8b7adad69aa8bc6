"""How much regions agree that were found with blocks of 10, 25, ... prompts."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import SAMPLE_SIZES
    from safety_regions.formats.parquet import write_table
    from safety_regions.overlap.pairs import compare_pairs

    regions = dict(zip(snakemake.params.names, snakemake.input.regions, strict=True))
    table = compare_pairs(regions, snakemake.params.pairs)
    write_table(snakemake.output.pairs, table, SAMPLE_SIZES, dict(snakemake.wildcards))
