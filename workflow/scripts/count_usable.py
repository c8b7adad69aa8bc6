"""Count the usable prompts of each identification set of a backbone, to take equally many of each."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def count_usable(
    responses: Sequence[str | Path], keep: dict[str, str], shared: Sequence[str | Path], output: str | Path
) -> None:
    """Write the number of usable prompts of each set.

    Args:
        responses, shared: see `choose_from`; ``keep``: dataset -> which of its prompts are used.
    """
    from safety_regions.formats.contracts import USABLE
    from safety_regions.formats.parquet import write_table
    from safety_regions.scoring import samples

    write_table(output, samples.count_usable(responses, keep, shared), USABLE)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        count_usable(
            responses=snakemake.input.responses, keep=snakemake.params.keep, shared=snakemake.input.shared,
            output=snakemake.output.usable,
        )  # fmt: skip
