"""Let a backbone answer the candidates and the held-out prompts of one dataset."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def write_responses(
    prompts: str | Path, checkpoint: Sequence[str | Path], backbone: str, card: dict, candidates: int,
    evaluate: int, origin: str, text: str | None, max_new_tokens: int, batch_size: int, output: str | Path,
    drop_long: bool = False,
) -> None:  # fmt: skip
    """Write the answers of the backbone of ``card``.

    Args:
        checkpoint: files of a local checkpoint; empty if ``card`` names another source.
        candidates, evaluate: maximum number of prompts of each split.
        origin, text, max_new_tokens, batch_size, drop_long: see `respond`.
    """
    from safety_regions.formats.contracts import PROMPTS, RESPONSES
    from safety_regions.formats.parquet import read_table, write_table
    from safety_regions.model.loading import load_backbone
    from safety_regions.model.responses import respond
    from safety_regions.prompts.splitting import first_of_splits

    asked = first_of_splits(read_table(prompts, PROMPTS), identify=candidates, evaluate=evaluate)
    loaded, how = load_backbone(card, checkpoint), {"origin": origin, "text": text, "batch_size": batch_size}
    responses = respond(loaded, asked, max_new_tokens=max_new_tokens, drop_long=drop_long, **how)
    limits = {"max_new_tokens": max_new_tokens, "too_long": asked.num_rows - responses.num_rows}
    write_table(output, responses, RESPONSES, {"backbone": backbone, **loaded.metadata, **limits})


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files, backbone = snakemake.params, snakemake.input, snakemake.wildcards.backbone
        write_responses(
            prompts=files.prompts, checkpoint=files.checkpoint, backbone=backbone, card=p.backbone,
            candidates=p.candidates, evaluate=p.evaluate, origin=p.origin, text=p.text,
            max_new_tokens=p.max_new_tokens, batch_size=snakemake.resources.batch_size,
            drop_long=p.drop_long, output=snakemake.output.responses,
        )  # fmt: skip
