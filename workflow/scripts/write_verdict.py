"""Write the verdict on every cell, with all its numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged

Paths = Mapping[str, str | Path]


def write_verdict(
    iou: str | Path, sizes: str | Path, names: Sequence[str], beside: Mapping[str, Paths], data_free: Sequence[str],
    base_reading: Sequence[str], tsv: str | Path,
) -> None:  # fmt: skip
    """Write the table of verdicts.

    Args:
        iou, sizes: the gathered overlaps and region sizes; ``names``: the identification sets.
        beside: ``pools``, ``cores``, ``blocks``, ``crossed``: cell -> its table; ``recovery``: organism -> its table.
        data_free, base_reading: methods without prompts, and methods that read the weights before alignment.
    """
    from safety_regions.formats.contracts import CORES, CROSSED, POOLS, RECOVERY, REGION_SIZES, SAMPLE_SIZES
    from safety_regions.formats.parquet import read_table, read_tables
    from safety_regions.report.files import save_tsv
    from safety_regions.report.verdict.measure import measure, model_pairs

    kinds = {"pools": POOLS, "cores": CORES, "blocks": SAMPLE_SIZES, "crossed": CROSSED, "recovery": RECOVERY}
    tables = {kind: dict(read_tables(paths, kinds[kind])) for kind, paths in beside.items()}
    pairs, found = model_pairs(iou), read_table(sizes, REGION_SIZES)
    save_tsv(tsv, measure(pairs, found, names, data_free=data_free, base_reading=base_reading, **tables))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, files = snakemake.params, snakemake.input
        beside = {kind: dict(zip(p.beside[kind], files[kind], strict=True)) for kind in p.beside}
        write_verdict(
            iou=files.iou, sizes=files.sizes, names=p.names, beside=beside, data_free=p.data_free,
            base_reading=p.base_reading, tsv=snakemake.output.tsv,
        )  # fmt: skip
