"""Train an organism: first to answer every prompt, then to refuse harmful prompts."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def train_organism(prompts: Sequence[str | Path], card: dict, organism: str, output: str | Path) -> None:
    """Write the checkpoint that ``card`` describes and its planted region, next to its training log ``output``.

    Args:
        prompts: tables of the card's datasets; each file is named after its dataset.
    """
    from safety_regions.formats.contracts import PROMPTS, TRAINING_LOG
    from safety_regions.formats.files import by_stem
    from safety_regions.formats.parquet import read_tables, write_table
    from safety_regions.training import organism as training

    tables = dict(read_tables(by_stem(prompts), PROMPTS))
    log = training.train_organism(card, tables, Path(output).parent, organism)
    write_table(output, log, TRAINING_LOG, {"organism": organism})


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        train_organism(
            prompts=snakemake.input.prompts, card=snakemake.params.card, organism=snakemake.wildcards.organism,
            output=snakemake.output.log,
        )  # fmt: skip
