"""Write the page on what regions do, and its table."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def write_behaviour(
    ablation: Sequence[str | Path], effects: Sequence[str | Path], transfer: Sequence[str | Path],
    constraint: Sequence[str | Path], html: str | Path, tsv: str | Path, constraint_tsv: str | Path,
    measures_tsv: str | Path,
) -> None:  # fmt: skip
    """Write the page and its tables from the tables of all cells, each a list of one file or none."""
    import pandas as pd

    from safety_regions.formats.contracts import ABLATION, CONSTRAINT, EFFECTS, TRANSFER
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.behaviour import behaviour_rows, measure_ranks
    from safety_regions.report.constraint import constraint_rows
    from safety_regions.report.files import save_text, save_tsv
    from safety_regions.report.pages.behaviour import behaviour_page
    from safety_regions.study.operation_shelf import operation_cards

    def read(paths, contract):
        empty = contract.schema.empty_table().to_pandas()
        return pd.concat([empty, *(read_table(path, contract).to_pandas() for path in paths)])

    cards = operation_cards()
    rows = behaviour_rows(read(effects, EFFECTS), {name: card["into_base"] for name, card in cards.items()})
    kept = constraint_rows(read(constraint, CONSTRAINT))
    save_tsv(tsv, rows)
    save_tsv(constraint_tsv, kept)
    ranks = measure_ranks(read(ablation, ABLATION))
    save_tsv(measures_tsv, ranks)
    titles = {name: card["title"] for name, card in cards.items()}
    save_text(html, behaviour_page(rows, read(transfer, TRANSFER), titles, kept, ranks))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        files, out = snakemake.input, snakemake.output
        write_behaviour(
            ablation=files.ablation, effects=files.effects, transfer=files.transfer, constraint=files.constraint,
            html=out.html, tsv=out.tsv, constraint_tsv=out.constraint, measures_tsv=out.measures,
        )  # fmt: skip
