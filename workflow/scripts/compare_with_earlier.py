"""Find the prompts of a dataset that datasets before it in the alphabet have too."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def compare_with_earlier(prompts: Sequence[str | Path], dataset: str, output: str | Path) -> None:
    """Write the pairs of ``dataset`` and a dataset before it, as in the table of all shared prompts.

    Args:
        prompts: tables of the dataset and of those before it; each file is named after its dataset.
    """
    from safety_regions.formats.contracts import PROMPTS, SHARED_PROMPTS
    from safety_regions.formats.files import by_stem
    from safety_regions.formats.parquet import read_tables, write_table
    from safety_regions.prompts.sharing import shared_with_earlier

    tables = dict(read_tables(by_stem(prompts), PROMPTS))
    write_table(output, shared_with_earlier(tables, dataset), SHARED_PROMPTS)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        dataset, output = snakemake.wildcards.dataset, snakemake.output.shared
        compare_with_earlier(prompts=snakemake.input.prompts, dataset=dataset, output=output)
