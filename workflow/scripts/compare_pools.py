"""Compare the regions of growing pools of sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def compare_pools(
    regions: Mapping[str, str | Path], steps: Sequence[Mapping], shuffled: Sequence[tuple[str, str]], nested: bool,
    cell: Mapping[str, str], output: str | Path,
) -> None:  # fmt: skip
    """Write one row for each pair of regions, over the whole model.

    Args:
        regions: name -> region file; ``steps``, ``shuffled``, ``nested``: see `overlap.pairs.compare_pools`.
        cell: backbone, method, selection and refinement, for the metadata.
    """
    from safety_regions.formats.contracts import POOLS
    from safety_regions.formats.parquet import write_table
    from safety_regions.overlap import pairs

    write_table(output, pairs.compare_pools(regions, steps, shuffled, nested), POOLS, dict(cell))


if __name__ == "__main__":
    from safety_regions.formats.region import region_files

    with logged(snakemake.log[0]):
        p, cell = snakemake.params, dict(snakemake.wildcards)
        compare_pools(
            regions=region_files(p.names, snakemake.input.regions), steps=p.steps, shuffled=p.shuffled,
            nested=p.nested, cell=cell, output=snakemake.output.pairs,
        )  # fmt: skip
