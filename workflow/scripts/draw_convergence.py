"""Draw how the regions of pooled sets settle as the pools grow."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import POOLS
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.figures.convergence import draw_convergence, pool_rows
    from safety_regions.report.files import save_svg, save_tsv

    p, w = snakemake.params, snakemake.wildcards
    tables = (
        (r, read_table(path, POOLS)) for r, path in zip(p.refinements, snakemake.input.tables, strict=True)
    )
    rows = pool_rows(tables)
    save_tsv(snakemake.output.tsv, rows)
    save_svg(snakemake.output.svg, draw_convergence(rows, f"{w.backbone} / {w.method} / {w.selection}"))
