"""Draw what the regions of one backbone, method and selection do, beside their controls."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def draw_behaviour(effects: Sequence[str | Path], where: str, svg: str | Path, tsv: str | Path) -> None:
    """Write the figure and its table; ``effects``: the tables of all refinements."""
    import pandas as pd

    from safety_regions.formats.contracts import EFFECTS
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.behaviour import main_rows
    from safety_regions.report.figures import behaviour
    from safety_regions.report.files import save_svg, save_tsv

    table = pd.concat([read_table(path, EFFECTS).to_pandas() for path in effects], ignore_index=True)
    save_tsv(tsv, main_rows(table))
    save_svg(svg, behaviour.draw_behaviour(table, where))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        place = " / ".join(snakemake.wildcards)
        draw_behaviour(
            effects=snakemake.input.effects, where=place, svg=snakemake.output.svg, tsv=snakemake.output.tsv
        )
