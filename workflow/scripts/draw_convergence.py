"""Draw how the regions of pooled sets converge as the pools grow."""

from collections.abc import Mapping
from pathlib import Path

from safety_regions.joblog import logged


def draw_convergence(
    tables: Mapping[str, str | Path], place: tuple[str, str, str], svg: str | Path, tsv: str | Path
) -> None:
    """Write the figure and its table.

    Args:
        tables: refinement -> its table of pools.
        place: backbone, method and selection.
    """
    from safety_regions.formats.contracts import POOLS
    from safety_regions.formats.parquet import read_tables
    from safety_regions.report.figures import convergence
    from safety_regions.report.files import save_svg, save_tsv

    rows = convergence.pool_rows(read_tables(tables, POOLS))
    save_tsv(tsv, rows)
    save_svg(svg, convergence.draw_convergence(rows, " / ".join(place)))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        w, out = snakemake.wildcards, snakemake.output
        tables = dict(zip(snakemake.params.refinements, snakemake.input.tables, strict=True))
        place = (w.backbone, w.method, w.selection)
        draw_convergence(tables=tables, place=place, svg=out.svg, tsv=out.tsv)
