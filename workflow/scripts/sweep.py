"""Measure what a method measures on a backbone after scoring, e.g. refusals while ranges of layers are scaled."""

from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def sweep(
    method: str,
    options: dict,
    backbone: dict,
    checkpoint: list[str],
    scores: str | Path,
    prompts: str | Path,
    batch_size: int,
    output: str | Path,
) -> None:
    """Write the sweep's table with what it found.

    Args:
        method: name on the shelf; it has a sweep.
        options: of the method, all of them.
        backbone: what of a card decides how the backbone is loaded.
        checkpoint: its files, none for one of the Hub.
        scores: score table from which the sweep starts.
        prompts: table of the prompts that are answered.
        batch_size: prompts a pass.
        output: where the table goes.
    """
    from safety_regions.formats.contracts import PROMPTS
    from safety_regions.formats.parquet import read_stamp, read_table, write_table
    from safety_regions.methods import load_sweep
    from safety_regions.model.backbone import load_backbone

    stamp, texts = read_stamp(scores), read_table(prompts, PROMPTS)["text"].to_pylist()
    loaded = load_backbone(backbone, checkpoint)
    measured = load_sweep(method)(loaded, texts, stamp["found"], options, batch_size)
    write_table(output, measured.table, measured.contract, {**stamp, "found": measured.found})


if __name__ == "__main__":
    p, files = snakemake.params, snakemake.input
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        sweep(
            method=p.method,
            options=p.options,
            backbone=p.backbone,
            checkpoint=files.checkpoint,
            scores=files.scores,
            prompts=files.prompts,
            batch_size=snakemake.resources.batch_size,
            output=snakemake.output.sweep,
        )
