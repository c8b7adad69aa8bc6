"""Draw how much the methods agree with each other on one backbone, a panel for each dataset."""

from pathlib import Path

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import OVERLAP
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.combinations import model_rows, pairs
    from safety_regions.report.figures.matrices import draw_matrices
    from safety_regions.report.files import save_svg, save_tsv

    p = snakemake.params
    overlaps = ((Path(path).stem, read_table(path, OVERLAP)) for path in snakemake.input.overlaps)
    table = pairs(model_rows(overlaps, p.methods), p.methods)
    title = f"Agreement of methods: IoU of their best {100 * p.fraction:g} % of weights"
    save_tsv(snakemake.output.tsv, table.rename(columns={"refinement": "dataset"}))
    save_svg(snakemake.output.svg, draw_matrices(table, snakemake.wildcards.backbone, title=title))
