"""Count, for each matrix, how many units carry each pattern of membership in the regions of a cell."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import MEMBERSHIP
    from safety_regions.formats.parquet import write_table
    from safety_regions.overlap.membership import count_membership

    regions = dict(zip(snakemake.params.names, snakemake.input.regions, strict=True))
    membership = count_membership(regions)
    write_table(snakemake.output.membership, membership.table, MEMBERSHIP, membership.stamp)
