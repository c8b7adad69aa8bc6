"""The layers from the onset of the gap to its plateau as a region."""

from pathlib import Path

from safety_regions.joblog import logged


def select_gap(scores: str | Path, output: str | Path) -> None:
    """Write the layers between onset and plateau that a score table of layers notes as a region."""
    from safety_regions.formats.region import write_region
    from safety_regions.methods.safelayer.selection import gap_region

    write_region(output, gap_region(scores))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        select_gap(snakemake.input.scores, snakemake.output.region)
