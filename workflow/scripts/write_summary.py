"""Write the summary page of the report: the verdict on every cell, its numbers, and what was studied."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged

Paths = Mapping[str, str | Path]


def write_summary(
    iou: str | Path, sizes: str | Path, names: Sequence[str], beside: Mapping[str, Paths], data_free: Sequence[str],
    facts: Mapping[str, Sequence[str]], gguf: Sequence[str | Path], holds: Mapping[str, str], html: str | Path,
    tsv: str | Path,
) -> None:  # fmt: skip
    """Write the page and the table of verdicts.

    Args:
        iou, sizes: the gathered overlaps and region sizes; ``names``: the identification sets.
        beside: ``pools``, ``blocks``, ``crossed``: cell -> its table; ``recovery``: organism -> its table.
        data_free: methods without prompts.
        facts: what was studied, term -> values; ``gguf``: what quantised checkpoints were made from.
        holds: where to find more, path -> contents.
    """
    from safety_regions.formats.contracts import CROSSED, POOLS, RECOVERY, REGION_SIZES, SAMPLE_SIZES
    from safety_regions.formats.parquet import read_table, read_tables
    from safety_regions.report.files import save_text, save_tsv
    from safety_regions.report.pages.summary import summary_page
    from safety_regions.report.verdict.measure import measure, model_pairs
    from safety_regions.study.facts import quantised_weights

    kinds = {"pools": POOLS, "blocks": SAMPLE_SIZES, "crossed": CROSSED, "recovery": RECOVERY}
    tables = {kind: dict(read_tables(paths, kinds[kind])) for kind, paths in beside.items()}
    pairs, found = model_pairs(iou), read_table(sizes, REGION_SIZES)
    verdicts = measure(pairs, found, names, data_free=data_free, **tables)
    save_tsv(tsv, verdicts)
    save_text(html, summary_page(verdicts, {**facts, **quantised_weights(gguf)}, holds))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, files, out = snakemake.params, snakemake.input, snakemake.output
        beside = {kind: dict(zip(p.beside[kind], files[kind], strict=True)) for kind in p.beside}
        write_summary(
            iou=files.iou, sizes=files.sizes, names=p.names, beside=beside, data_free=p.data_free, facts=p.facts,
            gguf=files.gguf, holds=p.files, html=out.html, tsv=out.tsv,
        )  # fmt: skip
