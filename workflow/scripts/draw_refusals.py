"""Draw how often each backbone refuses each dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def draw_refusals(
    responses: Sequence[str | Path],
    scores: Sequence[str | Path],
    roles: Mapping[str, str],
    svg: str | Path,
    tsv: str | Path,
) -> None:
    """Write the figure and its table.

    Args:
        responses, scores: tables of all backbones; only the metadata of the scores is read.
        roles: dataset -> its role, in the order shown.
    """
    from safety_regions.formats.contracts import RESPONSES
    from safety_regions.formats.parquet import read_metadata, read_table
    from safety_regions.report.figures import refusals
    from safety_regions.report.files import save_svg, save_tsv

    def answers():
        """Backbone and responses; prompts are not read, and responses are numbered, so no text can be shown."""
        columns = ["dataset", "split", "origin", "refused", "response"]
        for path in responses:
            yield read_metadata(path)["backbone"], refusals.numbered(read_table(path, RESPONSES, columns))

    rates = refusals.refusal_rates(answers(), roles, refusals.samples_used(map(read_metadata, scores)))
    save_tsv(tsv, rates)
    save_svg(svg, refusals.draw_refusals(rates))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        files, out = snakemake.input, snakemake.output
        draw_refusals(
            responses=files.responses,
            scores=files.scores,
            roles=snakemake.params.roles,
            svg=out.svg,
            tsv=out.tsv,
        )
