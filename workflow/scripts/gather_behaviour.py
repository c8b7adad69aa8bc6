"""Collect what the regions of all cells do, in one table for each kind of result."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def gather_behaviour(cells: Mapping[str, Sequence[str | Path]], output: Mapping[str, str | Path]) -> None:
    """Write the tables, with one cell in memory at a time.

    Args:
        cells, output: ``ablation``, ``effects``, ``transfer`` or ``constraint`` -> the tables of all cells, and the
            file for all.
    """
    from safety_regions.formats import contracts
    from safety_regions.formats.parquet import read_table, write_groups

    for kind, paths in cells.items():
        contract = getattr(contracts, kind.upper())
        write_groups(output[kind], (read_table(path, contract) for path in paths), contract)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        gather_behaviour(cells=dict(snakemake.input.items()), output=dict(snakemake.output.items()))
