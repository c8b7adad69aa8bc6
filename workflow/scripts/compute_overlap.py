"""Every IoU of a cell from its membership counts, and the square matrix of the pairs."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.overlap.gather import write_square_tsv
    from safety_regions.overlap.iou import compute_overlap, iou_matrix
    from safety_regions.overlap.membership import read_membership, region_totals
    from safety_regions.tables import OVERLAP, write_table

    membership = read_membership(snakemake.input.membership)
    overlap, sizes = compute_overlap(membership), region_totals(membership)
    write_table(snakemake.output.overlap, overlap, OVERLAP, membership.stamp)
    write_square_tsv(snakemake.output.matrix, list(sizes), iou_matrix(overlap, sizes))
