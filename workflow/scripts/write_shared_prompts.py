"""Show which datasets share prompts."""

from pathlib import Path

from safety_regions.joblog import logged


def write_shared_prompts(shared: str | Path, html: str | Path, tsv: str | Path) -> None:
    """Write the page of shared prompts and the table of its counts; neither contains a prompt."""
    from safety_regions.formats.contracts import SHARED_PROMPTS
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.files import save_text, save_tsv
    from safety_regions.report.pages.shared_prompts import shared_counts, shared_page

    counts = shared_counts(read_table(shared, SHARED_PROMPTS))
    save_tsv(tsv, counts)
    save_text(html, shared_page(counts))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        write_shared_prompts(snakemake.input.shared, snakemake.output.html, snakemake.output.tsv)
