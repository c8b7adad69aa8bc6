"""Find prompts that two datasets of the study share."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def compare_prompts(prompts: Sequence[str | Path], output: str | Path) -> None:
    """Write how many prompts each pair of the tables at ``prompts`` shares; each file is named after its dataset."""
    from safety_regions.formats.contracts import PROMPTS, SHARED_PROMPTS
    from safety_regions.formats.files import by_stem
    from safety_regions.formats.parquet import read_tables, write_table
    from safety_regions.prompts.sharing import shared_prompts

    tables = dict(read_tables(by_stem(prompts), PROMPTS))
    write_table(output, shared_prompts(tables), SHARED_PROMPTS)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        compare_prompts(snakemake.input.prompts, snakemake.output.shared)
