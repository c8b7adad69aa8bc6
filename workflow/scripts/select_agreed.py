"""Keep the neurons on which enough prompts agree as a region."""

from pathlib import Path

from safety_regions.joblog import logged


def select_agreed(scores: str | Path, selection: str, allow_empty: bool, output: str | Path) -> None:
    """Write the region of the neurons that ``selection`` takes of a score table."""
    from safety_regions.formats.region import write_region
    from safety_regions.methods.safeneuron import selection as agreement
    from safety_regions.units.selections import parse_agreement

    asked = parse_agreement(selection)
    write_region(output, agreement.select_agreed(scores, *asked, allow_empty=allow_empty))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        selection, allow_empty = snakemake.wildcards.selection, snakemake.params.allow_empty
        select_agreed(snakemake.input.scores, selection, allow_empty, snakemake.output.region)
