"""Train an organism, from nothing or from a pretrained checkpoint, to refuse harmful prompts."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def train_organism(
    prompts: Sequence[str | Path], base: Sequence[str | Path], card: dict, threads: int, organism: str,
    output: str | Path,
) -> None:  # fmt: skip
    """Write the checkpoint that ``card`` describes and its planted region, next to its training log ``output``.

    Args:
        prompts: tables of the card's datasets; each file is named after its dataset.
        base: files of the checkpoint to start from; empty if it comes from the Hub or there is none.
        threads: number of threads, which determines the last bits.
    """
    from safety_regions.formats.contracts import PROMPTS, TRAINING_LOG
    from safety_regions.formats.files import by_stem
    from safety_regions.formats.parquet import read_tables, write_table
    from safety_regions.model.loading import load_backbone
    from safety_regions.training import organism as training

    tables = dict(read_tables(by_stem(prompts), PROMPTS))
    start = load_backbone(card["base_card"] | {"dtype": "float32"}, base) if "base_card" in card else None
    log = training.train_organism(card, tables, Path(output).parent, organism, start, threads)
    write_table(output, log, TRAINING_LOG, {"organism": organism})


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        train_organism(
            prompts=snakemake.input.prompts, base=snakemake.input.base, card=snakemake.params.card,
            threads=snakemake.params.threads, organism=snakemake.wildcards.organism, output=snakemake.output.log,
        )  # fmt: skip
