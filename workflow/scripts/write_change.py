"""Write the directions in which alignment changed an organism."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def write_change(
    card: dict, checkpoint: Sequence[str | Path], before: str | Path, fraction: float, output: str | Path
) -> None:
    """Write a region of ranks, at most ``fraction`` (0-1] of those of each projection; see `scoring.change`.

    ``checkpoint``: files of the organism; ``before``: its weights before alignment.
    """
    from safety_regions.formats.region import write_region
    from safety_regions.model.loading import load_with_base
    from safety_regions.scoring.change import change_space

    write_region(output, change_space(load_with_base(card, checkpoint, before=[before]), fraction))


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files = snakemake.params, snakemake.input
        write_change(
            card=p.card, checkpoint=files.checkpoint, before=files.before, fraction=p.fraction,
            output=snakemake.output.change,
        )  # fmt: skip
