"""Draw what smaller and larger regions of one backbone and method do, beside their controls."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def draw_dose_response(
    effects: Sequence[str | Path], ablation: Sequence[str | Path], where: str, svg: str | Path, tsv: str | Path
) -> None:  # fmt: skip
    """Write the figure and its table; ``effects`` and ``ablation``: the tables of all selections and refinements."""
    import pandas as pd

    from safety_regions.formats.contracts import ABLATION, EFFECTS
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.figures import dose_response as figure
    from safety_regions.report.files import save_svg, save_tsv

    def read(paths, contract):
        return pd.concat([read_table(path, contract).to_pandas() for path in paths], ignore_index=True)

    rows = figure.dose_rows(read(effects, EFFECTS), read(ablation, ABLATION))
    save_tsv(tsv, rows)
    save_svg(svg, figure.draw_dose_response(rows, where))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        files, out, place = snakemake.input, snakemake.output, " / ".join(snakemake.wildcards)
        draw_dose_response(
            effects=files.effects, ablation=files.ablation, where=place, svg=out.svg, tsv=out.tsv
        )
