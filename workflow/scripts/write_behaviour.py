"""Write the page on what regions do, and its table."""

from pathlib import Path

from safety_regions.joblog import logged


def write_behaviour(effects: str | Path, transfer: str | Path, html: str | Path, tsv: str | Path) -> None:
    """Write page and table from the tables of all cells."""
    from safety_regions.formats.contracts import EFFECTS, TRANSFER
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.behaviour import behaviour_rows
    from safety_regions.report.files import save_text, save_tsv
    from safety_regions.report.pages.behaviour import behaviour_page
    from safety_regions.study.operation_shelf import operation_cards

    cards = operation_cards()
    rows = behaviour_rows(
        read_table(effects, EFFECTS).to_pandas(), {name: card["into_base"] for name, card in cards.items()}
    )
    save_tsv(tsv, rows)
    titles = {name: card["title"] for name, card in cards.items()}
    save_text(html, behaviour_page(rows, read_table(transfer, TRANSFER).to_pandas(), titles))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        files, out = snakemake.input, snakemake.output
        write_behaviour(effects=files.effects, transfer=files.transfer, html=out.html, tsv=out.tsv)
