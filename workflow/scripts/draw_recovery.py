"""Draw how well the methods find the region that was planted in an organism."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import RECOVERY
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.figures.recovery import draw_recovery, recovery_rows
    from safety_regions.report.files import save_svg, save_tsv

    rows = recovery_rows(read_table(snakemake.input.recovery, RECOVERY), snakemake.params.data_free)
    save_tsv(snakemake.output.tsv, rows)
    save_svg(snakemake.output.svg, draw_recovery(rows, snakemake.wildcards.organism))
