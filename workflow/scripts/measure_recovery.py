"""Measure how well the regions and scores of the methods recover the region planted in an organism."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged

Labelled = Sequence[tuple[Mapping[str, str], str | Path]]


def measure_recovery(
    truth: str | Path, scores: Labelled, regions: Labelled, removed: Labelled,
    adapter: Sequence[str | Path], family: str, organism: str, output: str | Path,
) -> None:  # fmt: skip
    """Write one row for each region: its labels, its agreement with the truth, and the areas for its method's scores.

    ``scores``, ``regions``, ``removed``: see `overlap.recovery`; ``adapter``: its files, empty if no method scores it.
    """
    import pyarrow as pa

    from safety_regions.formats.contracts import RECOVERY
    from safety_regions.formats.parquet import read_metadata, write_table
    from safety_regions.formats.region import read_region
    from safety_regions.overlap import recovery
    from safety_regions.regions.lora_factors import read_factors

    factors = read_factors(adapter, family, read_metadata(scores[0][1])["weight_shapes"])
    rows = recovery.measure_recovery(read_region(truth), scores, regions, removed, factors)
    write_table(output, pa.Table.from_pylist(rows), RECOVERY, {"organism": organism})


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, files, organism = snakemake.params, snakemake.input, snakemake.wildcards.organism
        measure_recovery(
            truth=files.truth, scores=list(zip(p.scores, files.scores, strict=True)),
            regions=list(zip(p.regions, files.regions, strict=True)),
            removed=list(zip(p.removed, files.removed, strict=True)), adapter=files.adapter, family=p.family,
            organism=organism, output=snakemake.output.recovery,
        )  # fmt: skip
