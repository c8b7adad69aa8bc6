"""How much the methods agree on one backbone and dataset, at equal size."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import OVERLAP
    from safety_regions.formats.parquet import read_stamp, write_table
    from safety_regions.overlap.between_methods import compare_methods, weights_of
    from safety_regions.overlap.gather import write_square_tsv
    from safety_regions.overlap.iou import compute_overlap, iou_matrix
    from safety_regions.overlap.membership import region_totals
    from safety_regions.regions.lora_factors import read_factors

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
