"""Every IoU of a cell from its membership counts, with floor and ceiling, and the square matrix of the pairs."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import OVERLAP
    from safety_regions.formats.parquet import write_table
    from safety_regions.overlap.frame import frame_overlap
    from safety_regions.overlap.gather import write_square_tsv
    from safety_regions.overlap.iou import iou_matrix
    from safety_regions.overlap.membership import read_membership, region_totals

    p = snakemake.params
    membership = read_membership(snakemake.input.membership)
    regions = dict(zip(p.names, snakemake.input.regions, strict=True))
    overlap = frame_overlap(membership, regions, p.utility, p.floors, p.halves, p.contiguous)
    sizes = region_totals(membership)
    write_table(snakemake.output.overlap, overlap, OVERLAP, membership.stamp)
    write_square_tsv(snakemake.output.matrix, list(sizes), iou_matrix(overlap, sizes))
