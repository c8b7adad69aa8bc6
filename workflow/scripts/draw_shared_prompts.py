"""Show which datasets share prompts."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import SHARED_PROMPTS
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.files import save_text, save_tsv
    from safety_regions.report.pages.shared_prompts import shared_counts, shared_page

    counts = shared_counts(read_table(snakemake.input.shared, SHARED_PROMPTS))
    save_tsv(snakemake.output.tsv, counts)
    save_text(snakemake.output.html, shared_page(counts))
