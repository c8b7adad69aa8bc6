"""Select the units with the best scores within each scope as a region."""

from pathlib import Path

from safety_regions.joblog import logged


def select_region(scores: str | Path, selection: str, allow_empty: bool, output: str | Path) -> None:
    """Write the region that ``selection`` (scope and fraction, e.g. ``row-0.05``) takes from a score table."""
    from safety_regions.formats.region import write_region
    from safety_regions.regions import select
    from safety_regions.units.selections import parse_selection

    scope, fraction = parse_selection(selection)
    write_region(output, select.select_region(scores, scope, fraction, allow_empty=allow_empty))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        selection, allow_empty = snakemake.wildcards.selection, snakemake.params.allow_empty
        select_region(snakemake.input.scores, selection, allow_empty, snakemake.output.region)
