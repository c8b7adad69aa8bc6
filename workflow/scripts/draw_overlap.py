"""Draw IoU matrices, region sizes and k-way IoUs of one backbone, method and selection."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.overlap.gather import region_sizes
    from safety_regions.overlap.membership import read_membership
    from safety_regions.report.combinations import by_count, model_rows, pairs
    from safety_regions.report.files import save_svg, save_tsv
    from safety_regions.report.kway import draw_kway
    from safety_regions.report.matrices import draw_matrices
    from safety_regions.report.sizes import draw_sizes, sizes_by_address
    from safety_regions.tables import OVERLAP, read_table

    p, w, out = snakemake.params, snakemake.wildcards, snakemake.output
    place, where = (w.backbone, w.method, w.selection), f"{w.backbone} / {w.method} / {w.selection}"
    overlaps = zip(p.refinements, snakemake.input.overlaps, strict=True)
    memberships = zip(p.refinements, snakemake.input.memberships, strict=True)
    rows = model_rows(((name, read_table(path, OVERLAP)) for name, path in overlaps), p.names)
    regions = ((name, region_sizes(read_membership(path), (*place, name))) for name, path in memberships)
    iou, kway, sizes = pairs(rows, p.names), by_count(rows), sizes_by_address(regions, p.names)
    for table, path in ((iou, out.iou_tsv), (kway, out.kway_tsv), (sizes, out.sizes_tsv)):
        save_tsv(path, table)
    save_svg(out.iou, draw_matrices(iou, where))
    save_svg(out.kway, draw_kway(kway, where))
    save_svg(out.sizes, draw_sizes(sizes, where))
