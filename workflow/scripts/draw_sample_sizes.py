"""Draw IoUs of regions that were found with blocks of n prompts."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import SAMPLE_SIZES
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.figures.sample_sizes import draw_sample_sizes, size_rows
    from safety_regions.report.files import save_svg, save_tsv

    p, w = snakemake.params, snakemake.wildcards
    tables = (
        (r, read_table(path, SAMPLE_SIZES))
        for r, path in zip(p.refinements, snakemake.input.tables, strict=True)
    )
    rows = size_rows(tables)
    save_tsv(snakemake.output.tsv, rows)
    save_svg(snakemake.output.svg, draw_sample_sizes(rows, f"{w.backbone} / {w.method} / {w.selection}"))
