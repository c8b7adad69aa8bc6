"""Draw IoU matrices, k-way IoUs, region sizes and IoU maps of one backbone, method and selection."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged

Paths = Mapping[str, str | Path]


def draw_overlap(
    overlaps: Paths, memberships: Paths, names: Sequence[str], place: tuple[str, str, str], outputs: Paths
) -> None:
    """Write the figures and tables of `figures_of_overlap`.

    Args:
        overlaps, memberships: refinement -> file.
        names: the identification sets.
        place: backbone, method and selection.
        outputs: name of a figure, or of a table (e.g. ``iou_table``) -> output file.
    """
    from safety_regions.formats.contracts import OVERLAP
    from safety_regions.formats.parquet import read_tables
    from safety_regions.overlap.subspaces import read_counted
    from safety_regions.report.figures.of_overlap import figures_of_overlap
    from safety_regions.report.files import save_svg, save_tsv

    counted = {refinement: read_counted(path) for refinement, path in memberships.items()}
    drawn = figures_of_overlap(dict(read_tables(overlaps, OVERLAP)), counted, names, place)
    for name, table in drawn.tables.items():
        save_tsv(outputs[f"{name}_table"], table)
    for name, figure in drawn.figures.items():
        save_svg(outputs[name], figure)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, w, files, out = snakemake.params, snakemake.wildcards, snakemake.input, dict(snakemake.output)
        overlaps = dict(zip(p.refinements, files.overlaps, strict=True))
        memberships = dict(zip(p.refinements, files.memberships, strict=True))
        place = (w.backbone, w.method, w.selection)
        draw_overlap(overlaps=overlaps, memberships=memberships, names=p.names, place=place, outputs=out)
