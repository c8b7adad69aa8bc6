"""Compare the effects of the regions of a cell with those of their controls, and the sets with each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def compare_effects(
    arms: Mapping[str, str | Path], judged: Sequence[str | Path], overlap: str | Path | None,
    cell: Mapping[str, str], ablation: str | Path,
    effects: str | Path, transfer: str | Path, transfer_pairs: str | Path,
) -> None:  # fmt: skip
    """Write the tables of a cell; see `tables_of_cell` for the arguments."""
    from safety_regions.behaviour.tables import tables_of_cell
    from safety_regions.formats.parquet import write_table

    tables = tables_of_cell(cell, arms, overlap, judged)
    paths = (ablation, effects, transfer, transfer_pairs)
    for path, (contract, table) in zip(paths, tables.items(), strict=True):
        write_table(path, table, contract, dict(cell))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, files, out = snakemake.params, snakemake.input, snakemake.output
        compare_effects(
            arms=dict(zip(p.names, files.arms, strict=True)), judged=files.judged,
            overlap=files.overlap or None, cell=p.cell,
            ablation=out.ablation, effects=out.effects, transfer=out.transfer, transfer_pairs=out.transfer_pairs,
        )  # fmt: skip
