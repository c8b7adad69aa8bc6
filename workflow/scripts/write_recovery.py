"""Write how well the methods recover planted regions, with all organisms in one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def write_recovery(
    tables: Mapping[str, str | Path],
    cards: Mapping[str, Mapping],
    data_free: Sequence[str],
    base_reading: Sequence[str],
    html: str | Path,
    tsv: str | Path,
) -> None:
    """Write the recovery page and its table.

    Args:
        tables: organism -> its recovery table; ``cards``: see `study.facts.planted_cards`.
        data_free, base_reading: labels of methods that use no prompt, and of those that read the weights before
            alignment.
    """
    from safety_regions.formats.contracts import RECOVERY
    from safety_regions.formats.parquet import read_tables
    from safety_regions.report.elsewhere import areas_by_truth, areas_elsewhere
    from safety_regions.report.figures.recovery import recovery_rows
    from safety_regions.report.files import save_text, save_tsv
    from safety_regions.report.pages import recovery

    rows, areas = {}, {}
    for organism, table in read_tables(tables, RECOVERY):
        rows[organism] = recovery_rows(table, data_free, organism, base_reading)
        areas[organism] = areas_by_truth(table)
    stacked = recovery.recovery_table(rows, cards, areas_elsewhere(areas, cards))
    save_tsv(tsv, stacked)
    save_text(html, recovery.recovery_page(stacked))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, out = snakemake.params, snakemake.output
        tables = dict(zip(p.cards, snakemake.input.recovery, strict=True))
        write_recovery(
            tables=tables, cards=p.cards, data_free=p.data_free, base_reading=p.base_reading, html=out.html,
            tsv=out.tsv,
        )  # fmt: skip
