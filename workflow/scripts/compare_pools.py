"""How much the regions of pooled sets agree as the pools grow."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import POOLS
    from safety_regions.formats.parquet import write_table
    from safety_regions.overlap.pairs import compare_pairs

    regions = dict(zip(snakemake.params.names, snakemake.input.regions, strict=True))
    table = compare_pairs(regions, snakemake.params.pairs)
    write_table(snakemake.output.pairs, table, POOLS, dict(snakemake.wildcards))
