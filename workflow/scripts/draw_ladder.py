"""Draw every pairwise IoU between chance and ceiling, of one backbone, method and selection."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import OVERLAP
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.figures.ladder import draw_ladder, ladder
    from safety_regions.report.files import save_svg, save_tsv

    p, w = snakemake.params, snakemake.wildcards
    tables = (
        (r, read_table(path, OVERLAP)) for r, path in zip(p.refinements, snakemake.input.tables, strict=True)
    )
    rows = ladder(tables)
    save_tsv(snakemake.output.tsv, rows)
    save_svg(snakemake.output.svg, draw_ladder(rows, f"{w.backbone} / {w.method} / {w.selection}"))
