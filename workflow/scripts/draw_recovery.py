"""Draw how well the methods recover the region that was planted in an organism."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def draw_recovery(
    table: str | Path, data_free: Sequence[str], organism: str, svg: str | Path, tsv: str | Path
) -> None:
    """Write the figure of one organism's recovery table, and its rows; ``data_free``: methods that use no prompt."""
    from safety_regions.formats.contracts import RECOVERY
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.figures import recovery
    from safety_regions.report.files import save_svg, save_tsv

    rows = recovery.recovery_rows(read_table(table, RECOVERY), data_free, organism)
    save_tsv(tsv, rows)
    save_svg(svg, recovery.draw_recovery(rows, organism))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        draw_recovery(
            table=snakemake.input.recovery, data_free=snakemake.params.data_free, organism=snakemake.wildcards.organism,
            svg=snakemake.output.svg, tsv=snakemake.output.tsv,
        )  # fmt: skip
