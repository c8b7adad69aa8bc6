"""Select a region with a method's own selection, e.g. neurons on which prompts agree."""

from pathlib import Path

from safety_regions.joblog import logged


def select_own(
    method: str,
    scores: str | Path,
    selection: str,
    output: str | Path,
    sweep: str | Path | None = None,
    allow_empty: bool = False,
) -> None:
    """Write the region that a method selects from its scores or its sweep.

    Args:
        method: module name of the method; its CARD lists the selection.
        scores: its score table.
        selection: e.g. ``common-0.2``.
        output: file for the region.
        sweep: the table of the sweep, if the selection needs it.
        allow_empty: accept a selection without any unit of a module.
    """
    from safety_regions.formats.region import write_region
    from safety_regions.methods import load_select

    write_region(output, load_select(method)(scores, selection, sweep, allow_empty))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        select_own(
            method=snakemake.params.method,
            scores=snakemake.input.scores,
            selection=snakemake.wildcards.selection,
            output=snakemake.output.region,
            sweep=snakemake.input.sweep or None,
            allow_empty=snakemake.params.allow_empty,
        )
