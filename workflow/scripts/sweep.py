"""Run the sweep of a method on a backbone after scoring, e.g. count refusals while ranges of layers are scaled."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def sweep(
    method: str, options: dict, card: dict, checkpoint: Sequence[str | Path], scores: str | Path,
    prompts: str | Path, batch_size: int, output: str | Path,
) -> None:  # fmt: skip
    """Write the table of a sweep, with its findings in the metadata.

    Args:
        method, options: name of a method that has a sweep, and all of its options.
        card, checkpoint: how the backbone is loaded, and its files (none for a backbone from the Hub).
        scores, prompts: the score table from which the sweep starts, and the prompts that are answered.
    """
    from safety_regions.formats.contracts import PROMPTS
    from safety_regions.formats.parquet import read_metadata, read_table, write_table
    from safety_regions.methods import load_sweep
    from safety_regions.model.loading import load_backbone

    metadata, table = read_metadata(scores), read_table(prompts, PROMPTS)
    texts = dict(zip(table["prompt_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    loaded = load_backbone(card, checkpoint)
    measured = load_sweep(method)(loaded, texts, metadata["found"], options, batch_size)
    write_table(output, measured.table, measured.contract, {**metadata, "found": measured.found})


if __name__ == "__main__":
    from safety_regions.formats.files import named_files

    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files = snakemake.params, snakemake.input
        (scores,) = named_files([p.name], files.scores, ".parquet").values()
        sweep(
            method=p.method, options=p.options, card=p.backbone, checkpoint=files.checkpoint, scores=scores,
            prompts=files.prompts, batch_size=snakemake.resources.batch_size, output=snakemake.output.sweep,
        )  # fmt: skip
