"""All overlaps and region sizes of the grid in one table each."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.overlap.gather import gather_overlaps, gather_sizes
    from safety_regions.tables import IOU, REGION_SIZES, write_groups

    files, out = snakemake.input, snakemake.output
    cells = [tuple(cell) for cell in snakemake.params.cells]
    # A row group for each cell: one cell is in memory at a time.
    overlaps = (gather_overlaps({c: path}) for c, path in zip(cells, files.overlaps, strict=True))
    sizes = (gather_sizes({c: path}) for c, path in zip(cells, files.memberships, strict=True))
    write_groups(out.iou, overlaps, IOU)
    write_groups(out.sizes, sizes, REGION_SIZES)
