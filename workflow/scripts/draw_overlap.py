"""Draw IoU matrices, k-way IoUs, region sizes and where sets agree, of one backbone, method and selection."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import OVERLAP
    from safety_regions.formats.parquet import read_table
    from safety_regions.overlap.gather import region_sizes
    from safety_regions.overlap.membership import read_membership
    from safety_regions.report.combinations import by_count, model_rows, pairs
    from safety_regions.report.figures.kway import draw_kway
    from safety_regions.report.figures.maps import draw_map, iou_by_address
    from safety_regions.report.figures.margins import draw_margins, margins
    from safety_regions.report.figures.matrices import draw_matrices, tree_of
    from safety_regions.report.figures.sizes import draw_sizes, sizes_by_address
    from safety_regions.report.figures.tree import merge_table
    from safety_regions.report.files import save_svg, save_tsv

    p, w, out, files = snakemake.params, snakemake.wildcards, snakemake.output, snakemake.input
    place, where = (w.backbone, w.method, w.selection), f"{w.backbone} / {w.method} / {w.selection}"
    overlaps = [(r, read_table(path, OVERLAP)) for r, path in zip(p.refinements, files.overlaps, strict=True)]
    counted = [(r, read_membership(path)) for r, path in zip(p.refinements, files.memberships, strict=True)]
    rows = model_rows(overlaps, p.names)
    iou, kway, sides, spots = pairs(rows, p.names), by_count(rows), margins(overlaps), iou_by_address(counted)
    sizes = sizes_by_address([(r, region_sizes(one, (*place, r))) for r, one in counted], p.names)
    tree = tree_of(iou)
    tables = (iou, merge_table(tree, p.names), kway, sizes, spots, sides)
    for table, path in zip(tables, out.tables, strict=True):
        save_tsv(path, table)
    save_svg(out.iou, draw_matrices(iou, where, tree))
    save_svg(out.kway, draw_kway(kway, where))
    save_svg(out.sizes, draw_sizes(sizes, where))
    save_svg(out.map, draw_map(spots, where))
    save_svg(out.margins, draw_margins(sides, where))
