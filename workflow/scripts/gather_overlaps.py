"""All overlaps and region sizes of the grid in one table each."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import IOU, REGION_SIZES
    from safety_regions.formats.parquet import write_groups
    from safety_regions.overlap.gather import gather_overlaps, gather_sizes

    files, out = snakemake.input, snakemake.output
    cells = [tuple(cell) for cell in snakemake.params.cells]
    overlaps = dict(zip(cells, files.overlaps, strict=True))
    memberships = dict(zip(cells, files.memberships, strict=True))
    write_groups(out.iou, gather_overlaps(overlaps), IOU)
    write_groups(out.sizes, gather_sizes(memberships), REGION_SIZES)
