"""Scale ranges of a backbone's layers and count the harmless questions it then refuses."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import lent_gpus


def sweep_layers(
    scores: str | Path, questions: str | Path, checkpoint: Sequence[str | Path], card: dict, options: dict,
    batch_size: int, output: str | Path,
) -> None:  # fmt: skip
    """Write the sweep of the backbone of ``card`` from the gap that the stamp of ``scores`` notes."""
    from safety_regions.formats.contracts import LAYER_SWEEP, PROMPTS
    from safety_regions.formats.parquet import read_stamp, read_table, write_table
    from safety_regions.methods.safelayer import sweep
    from safety_regions.model.backbone import load_backbone

    stamp, texts = read_stamp(scores), read_table(questions, PROMPTS)["text"].to_pylist()
    backbone = load_backbone(card, checkpoint)
    swept = sweep.sweep_layers(backbone, texts, stamp["found"]["gap"], options, batch_size)
    write_table(output, swept.table, LAYER_SWEEP, {**stamp, "found": swept.found})


if __name__ == "__main__":
    with logged(snakemake.log[0]), lent_gpus(snakemake.resources.gpu):
        p, files, batch_size = snakemake.params, snakemake.input, snakemake.resources.batch_size
        sweep_layers(
            scores=files.scores, questions=files.questions[0], checkpoint=files.checkpoint, card=p.backbone,
            options=p.options, batch_size=batch_size, output=snakemake.output.sweep,
        )  # fmt: skip
