"""Draw refusals along fine-tuning for the regions of one backbone, method and selection."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def draw_constraint(arms: Sequence[str | Path], where: str, svg: str | Path, tsv: str | Path) -> None:
    """Write the figure and its table; ``arms``: the tables of all constraint jobs of these regions."""
    import pandas as pd

    from safety_regions.formats.contracts import CONSTRAINT
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.figures import constraint
    from safety_regions.report.files import save_svg, save_tsv

    rows = constraint.courses(pd.concat([read_table(path, CONSTRAINT).to_pandas() for path in arms]))
    save_tsv(tsv, rows)
    save_svg(svg, constraint.draw_constraint(rows, where))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        place = " / ".join(snakemake.wildcards)
        draw_constraint(
            arms=snakemake.input.arms, where=place, svg=snakemake.output.svg, tsv=snakemake.output.tsv
        )
