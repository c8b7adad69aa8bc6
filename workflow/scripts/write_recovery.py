"""Write what the methods find of planted regions, all organisms in one table."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import RECOVERY
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.figures.recovery import recovery_rows
    from safety_regions.report.files import save_text, save_tsv
    from safety_regions.report.pages.recovery import recovery_page, recovery_table

    p = snakemake.params
    tables = zip(p.cards, snakemake.input.recovery, strict=True)
    rows = {organism: recovery_rows(read_table(path, RECOVERY), p.data_free) for organism, path in tables}
    table = recovery_table(rows, p.cards)
    save_tsv(snakemake.output.tsv, table)
    save_text(snakemake.output.html, recovery_page(table))
