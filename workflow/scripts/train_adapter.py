"""Train the reference LoRA adapter of a backbone on its own refusals and answers."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def train_adapter(
    responses: Sequence[str | Path], checkpoint: Sequence[str | Path], backbone: str, card: dict, plan: dict,
    batch_size: int, output: str | Path,
) -> None:  # fmt: skip
    """Write an adapter in peft's format next to its training log ``output``.

    Args:
        responses: of the backbone; each file is named after its dataset.
        checkpoint: files of a local checkpoint; empty if ``card`` names another source.
        plan: the key ``adapters`` of the config, with defaults filled in.
    """
    from safety_regions.formats.contracts import ADAPTER_LOG, RESPONSES
    from safety_regions.formats.files import by_stem
    from safety_regions.formats.parquet import read_tables, write_table
    from safety_regions.model.loading import load_backbone
    from safety_regions.training import adapter

    answers, loaded = dict(read_tables(by_stem(responses), RESPONSES)), load_backbone(card, checkpoint)
    trained = adapter.train_adapter(loaded, plan, answers, Path(output).parent, batch_size)
    write_table(
        output, trained.log, ADAPTER_LOG, {"backbone": backbone, **loaded.metadata, **trained.metadata}
    )


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files, batch_size = snakemake.params, snakemake.input, snakemake.resources.batch_size
        train_adapter(
            responses=files.responses, checkpoint=files.checkpoint, backbone=snakemake.wildcards.backbone,
            card=p.backbone, plan=p.plan, batch_size=batch_size, output=snakemake.output.log,
        )  # fmt: skip
