"""Draw the overlap of regions beside the transfer of their effects, for one backbone, method and selection."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def draw_transfer(
    pairs: Sequence[str | Path], transfer: Sequence[str | Path], where: str, svg: str | Path, tsv: str | Path
) -> None:
    """Write the figure and its table; ``pairs`` and ``transfer``: the tables of all refinements."""
    import pandas as pd

    from safety_regions.formats.contracts import TRANSFER, TRANSFER_PAIRS
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.figures import transfer as figure
    from safety_regions.report.files import save_svg, save_tsv

    rows = figure.shown_pairs(pd.concat([read_table(path, TRANSFER_PAIRS).to_pandas() for path in pairs]))
    tests = pd.concat([read_table(path, TRANSFER).to_pandas() for path in transfer])
    save_tsv(tsv, rows)
    save_svg(svg, figure.draw_transfer(rows, tests, where))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        files, out = snakemake.input, snakemake.output
        draw_transfer(
            pairs=files.pairs,
            transfer=files.transfer,
            where=" / ".join(snakemake.wildcards),
            svg=out.svg,
            tsv=out.tsv,
        )
