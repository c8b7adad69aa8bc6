"""Draw all cells of a backbone between chance and ceiling."""

from collections.abc import Collection, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def draw_ladders(
    verdict: str | Path, backbone: str, methods: Sequence[str], data_free: Collection[str],
    svg: str | Path, tsv: str | Path,
) -> None:  # fmt: skip
    """Write the figure and its table, from the table of verdicts.

    Args:
        methods: all methods of the study; ``data_free``: those without prompts.
    """
    from safety_regions.report.files import read_tsv, save_text, save_tsv
    from safety_regions.report.pages import ladders

    rows = ladders.ladder_rows(read_tsv(verdict), backbone)
    save_tsv(tsv, rows)
    save_text(svg, ladders.draw_ladders(rows, backbone, methods, data_free))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, out = snakemake.params, snakemake.output
        draw_ladders(
            verdict=snakemake.input.verdict, backbone=snakemake.wildcards.backbone, methods=p.methods,
            data_free=p.data_free, svg=out.svg, tsv=out.tsv,
        )  # fmt: skip
