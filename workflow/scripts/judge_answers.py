"""Ask a judge how harmful the answers of changed models to harmful prompts are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def judge_answers(
    answers: str | Path, responses: Sequence[str | Path], card: dict, rules: Mapping,
    checkpoint: Sequence[str | Path], name: str, batch_size: int, output: str | Path,
) -> None:  # fmt: skip
    """Write the judged values of one region's job.

    Args:
        answers: a `contracts.ANSWERS` table; ``responses``: tables with the prompts.
        card, checkpoint: see `load_backbone`; ``rules``: the section ``judge`` of the card; ``name``: the judge's.
    """
    from safety_regions.behaviour import job
    from safety_regions.behaviour.judges import load_judge
    from safety_regions.formats.contracts import ABLATED, ANSWERS, RESPONSES
    from safety_regions.formats.files import by_stem
    from safety_regions.formats.parquet import read_metadata, read_table, read_tables, write_table

    metadata = read_metadata(answers)
    judge = load_judge(card, rules, checkpoint, batch_size)
    prompts = dict(read_tables(by_stem(responses), RESPONSES))
    table = job.judge(judge, name, read_table(answers, ANSWERS), prompts, metadata["roles"])
    write_table(output, table, ABLATED, metadata | {"judge": name, **judge.metadata})


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files = snakemake.params, snakemake.input
        judge_answers(
            answers=files.answers, responses=files.responses, card=p.card, rules=p.rules,
            checkpoint=files.checkpoint, name=snakemake.wildcards.judge,
            batch_size=snakemake.resources.batch_size, output=snakemake.output.judged,
        )  # fmt: skip
