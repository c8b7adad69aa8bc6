"""How much the methods agree on one backbone and dataset, at equal size."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.adapters.expand import read_factors
    from safety_regions.overlap.between_methods import compare_methods, weights_of
    from safety_regions.overlap.gather import write_square_tsv
    from safety_regions.overlap.iou import compute_overlap, iou_matrix
    from safety_regions.overlap.membership import region_totals
    from safety_regions.tables import OVERLAP, read_stamp, write_table

    p, files = snakemake.params, snakemake.input
    factors = read_factors(files.adapter, p.family, read_stamp(files.scores[0])["weight_shapes"])
    regions = {
        label: weights_of(path, p.fraction, factors)
        for label, path in zip(p.methods, files.scores, strict=True)
    }
    membership = compare_methods(regions)
    overlap, sizes = compute_overlap(membership), region_totals(membership)
    write_table(snakemake.output.overlap, overlap, OVERLAP, membership.stamp)
    write_square_tsv(snakemake.output.matrix, list(sizes), iou_matrix(overlap, sizes))
