"""Draw the agreement of the methods on one backbone, one panel for each dataset."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def draw_methods(
    overlaps: Sequence[str | Path],
    methods: Sequence[str],
    fraction: float,
    backbone: str,
    svg: str | Path,
    tsv: str | Path,
) -> None:
    """Write the figure and its table.

    Args:
        overlaps: tables of overlaps between methods; each file is named after its dataset.
        fraction: share of the weights (0-1) in the region of each method, for the title.
    """
    from safety_regions.formats.contracts import OVERLAP
    from safety_regions.formats.files import by_stem
    from safety_regions.formats.parquet import read_tables
    from safety_regions.report.combinations import method_pairs
    from safety_regions.report.figures.matrices import draw_matrices
    from safety_regions.report.files import save_svg, save_tsv

    table = method_pairs(dict(read_tables(by_stem(overlaps), OVERLAP)), methods)
    title = f"Agreement of methods: IoU of their best {100 * fraction:g} % of weights"
    save_tsv(tsv, table.rename(columns={"refinement": "dataset"}))
    save_svg(svg, draw_matrices(table, backbone, title=title))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, w, out = snakemake.params, snakemake.wildcards, snakemake.output
        draw_methods(
            overlaps=snakemake.input.overlaps, methods=p.methods, fraction=p.fraction, backbone=w.backbone,
            svg=out.svg, tsv=out.tsv,
        )  # fmt: skip
