"""Measure, for each matrix, how many dimensions the regions of each pair of sets share; regions are subspaces."""

from collections.abc import Mapping
from pathlib import Path

from safety_regions.joblog import logged


def measure_subspaces(regions: Mapping[str, str | Path], output: str | Path, spectrum: str | Path) -> None:
    """Write the shared dimensions of ``regions`` (name -> region file), and ``spectrum``, what all of them share."""
    from safety_regions.formats.contracts import SPECTRUM, SUBSPACES
    from safety_regions.formats.parquet import write_table
    from safety_regions.overlap import subspaces
    from safety_regions.overlap.spectrum import measure_spectrum

    shared = subspaces.measure_shared(regions)
    write_table(output, shared.table, SUBSPACES, shared.metadata)
    write_table(spectrum, measure_spectrum(regions), SPECTRUM, shared.metadata)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        regions = dict(zip(snakemake.params.names, snakemake.input.regions, strict=True))
        measure_subspaces(regions, snakemake.output.shared, snakemake.output.spectrum)
