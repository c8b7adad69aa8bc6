"""Draw the IoUs of regions that were found with blocks of n prompts."""

from collections.abc import Mapping
from pathlib import Path

from safety_regions.joblog import logged


def draw_sample_sizes(
    tables: Mapping[str, str | Path], place: tuple[str, str, str], svg: str | Path, tsv: str | Path
) -> None:
    """Write the figure and its table.

    Args:
        tables: refinement -> its table of blocks.
        place: backbone, method and selection.
    """
    from safety_regions.formats.contracts import SAMPLE_SIZES
    from safety_regions.formats.parquet import read_tables
    from safety_regions.report.figures import sample_sizes
    from safety_regions.report.files import save_svg, save_tsv

    rows = sample_sizes.size_rows(read_tables(tables, SAMPLE_SIZES))
    save_tsv(tsv, rows)
    save_svg(svg, sample_sizes.draw_sample_sizes(rows, " / ".join(place)))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        w, out = snakemake.wildcards, snakemake.output
        tables = dict(zip(snakemake.params.refinements, snakemake.input.tables, strict=True))
        place = (w.backbone, w.method, w.selection)
        draw_sample_sizes(tables=tables, place=place, svg=out.svg, tsv=out.tsv)
