"""Compare a backbone with its base: shapes and vocabulary must be the same."""

import json
from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def compare_pair(
    card: dict,
    checkpoint: Sequence[str | Path],
    base: Sequence[str | Path],
    backbone: str,
    output: str | Path,
) -> None:
    """Write what the two have in common; ``checkpoint`` and ``base`` are their files, empty for the Hub."""
    from safety_regions.formats.files import finished_at
    from safety_regions.model import pairs

    found = pairs.compare_pair(card, checkpoint, base, backbone)
    with finished_at(output) as temporary:
        temporary.write_text(json.dumps(found, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        compare_pair(
            card=snakemake.params.card, checkpoint=snakemake.input.checkpoint, base=snakemake.input.base,
            backbone=snakemake.wildcards.backbone, output=snakemake.output.pair,
        )  # fmt: skip
