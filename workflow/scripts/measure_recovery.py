"""Measure how well the regions and scores of the methods recover the region planted in an organism."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged

Labelled = Sequence[tuple[Mapping[str, str], str | Path]]


def measure_recovery(
    truths: Mapping[str, str | Path], scores: Labelled, regions: Labelled, removed: Labelled,
    adapter: Sequence[str | Path], family: str, organism: str, output: str | Path, samples: Labelled = (),
    changes: Sequence[str | Path] = (),
) -> None:  # fmt: skip
    """Write a row for each truth and region: labels, the agreement of both, and the areas for its method's scores.

    ``truths``: organism -> its planted region; ``scores``, ``regions``, ``removed``, ``samples``: of this
    organism, see `overlap.recovery`; ``adapter``: its files, empty if no method scores it; ``changes``: for each truth
    the directions of its change, empty if no method selects ranks.
    """
    import pyarrow as pa

    from safety_regions.formats.contracts import RECOVERY
    from safety_regions.formats.parquet import read_metadata, write_table
    from safety_regions.formats.region import read_region
    from safety_regions.formats.subspaces import read_subspaces
    from safety_regions.overlap import recovery
    from safety_regions.regions.lora_factors import read_factors

    factors = read_factors(adapter, family, read_metadata(scores[0][1])["weight_shapes"])
    planted = {name: read_region(path) for name, path in truths.items()}
    spaces = dict(zip(truths, map(read_subspaces, changes), strict=True)) if changes else None
    rows = recovery.measure_recovery(planted, scores, regions, removed, factors, samples, spaces)
    write_table(output, pa.Table.from_pylist(rows), RECOVERY, {"organism": organism})


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, files, organism = snakemake.params, snakemake.input, snakemake.wildcards.organism
        measure_recovery(
            truths=dict(zip(p.truths, files.truths, strict=True)),
            scores=list(zip(p.scores, files.scores, strict=True)),
            samples=list(zip(p.samples, files.samples, strict=True)),
            regions=list(zip(p.regions, files.regions, strict=True)),
            removed=list(zip(p.removed, files.removed, strict=True)), adapter=files.adapter, family=p.family,
            organism=organism, output=snakemake.output.recovery, changes=files.changes,
        )  # fmt: skip
