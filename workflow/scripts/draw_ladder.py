"""Draw the pairwise IoUs of one backbone, method and selection between chance and ceiling."""

from collections.abc import Mapping
from pathlib import Path

from safety_regions.joblog import logged


def draw_ladder(
    tables: Mapping[str, str | Path], place: tuple[str, str, str], svg: str | Path, tsv: str | Path
) -> None:
    """Write the figure and its table.

    Args:
        tables: refinement -> its overlaps.
        place: backbone, method and selection.
    """
    from safety_regions.formats.contracts import OVERLAP
    from safety_regions.formats.parquet import read_tables
    from safety_regions.report.figures import ladder
    from safety_regions.report.files import save_svg, save_tsv

    rows = ladder.ladder(read_tables(tables, OVERLAP))
    save_tsv(tsv, rows)
    save_svg(svg, ladder.draw_ladder(rows, " / ".join(place)))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        w, out = snakemake.wildcards, snakemake.output
        tables = dict(zip(snakemake.params.refinements, snakemake.input.tables, strict=True))
        place = (w.backbone, w.method, w.selection)
        draw_ladder(tables=tables, place=place, svg=out.svg, tsv=out.tsv)
