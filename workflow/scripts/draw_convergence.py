"""Draw how the regions of pooled sets settle as the pools grow."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.report.convergence import draw_convergence, pool_rows
    from safety_regions.report.files import save_svg, save_tsv
    from safety_regions.tables import POOLS, read_table

    p, w = snakemake.params, snakemake.wildcards
    tables = (
        (r, read_table(path, POOLS)) for r, path in zip(p.refinements, snakemake.input.tables, strict=True)
    )
    rows = pool_rows(tables)
    save_tsv(snakemake.output.tsv, rows)
    save_svg(snakemake.output.svg, draw_convergence(rows, f"{w.backbone} / {w.method} / {w.selection}"))
