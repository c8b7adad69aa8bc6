"""Draw what more and more sets have in common, beside shuffled statistics and regrouped prompts."""

from collections.abc import Mapping
from pathlib import Path

from safety_regions.joblog import logged


def draw_cores(
    tables: Mapping[str, str | Path], place: tuple[str, str, str], svg: str | Path, tsv: str | Path
) -> None:
    """Write the figure and its table.

    Args:
        tables: refinement -> its table of cores.
        place: backbone, method and selection.
    """
    from safety_regions.formats.contracts import CORES
    from safety_regions.formats.parquet import read_tables
    from safety_regions.report.figures import cores
    from safety_regions.report.files import save_svg, save_tsv

    rows = cores.cores(read_tables(tables, CORES))
    save_tsv(tsv, rows)
    save_svg(svg, cores.draw_cores(rows, " / ".join(place)))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        w, out = snakemake.wildcards, snakemake.output
        tables = dict(zip(snakemake.params.refinements, snakemake.input.tables, strict=True))
        place = (w.backbone, w.method, w.selection)
        draw_cores(tables=tables, place=place, svg=out.svg, tsv=out.tsv)
