"""How much the regions of pooled sets agree as the pools grow."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.overlap.pairs import compare_pairs
    from safety_regions.tables import POOLS, write_table

    regions = dict(zip(snakemake.params.names, snakemake.input.regions, strict=True))
    table = compare_pairs(regions, snakemake.params.pairs)
    write_table(snakemake.output.pairs, table, POOLS, dict(snakemake.wildcards))
