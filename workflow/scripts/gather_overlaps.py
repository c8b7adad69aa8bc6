"""All overlaps and region sizes of the grid in one table each."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.overlap.gather import gather_overlaps, gather_sizes
    from safety_regions.tables import IOU, REGION_SIZES, write_table

    cells = [tuple(cell) for cell in snakemake.params.cells]
    overlaps = dict(zip(cells, snakemake.input.overlaps, strict=True))
    memberships = dict(zip(cells, snakemake.input.memberships, strict=True))
    write_table(snakemake.output.iou, gather_overlaps(overlaps), IOU)
    write_table(snakemake.output.sizes, gather_sizes(memberships), REGION_SIZES)
