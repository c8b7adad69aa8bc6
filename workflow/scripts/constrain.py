"""Fine-tune a backbone with one region frozen, rewound or trained alone, and with controls in its place."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def constrain(
    region: str | Path, utility: Sequence[str | Path], responses: Sequence[str | Path], roles: dict[str, str],
    checkpoint: Sequence[str | Path], base: Sequence[str | Path], before: Sequence[str | Path], backbone: dict,
    plan: dict, seed: int, batch_size: int, max_new_tokens: int, labels: dict, journal: str | Path, output: str | Path,
) -> None:  # fmt: skip
    """Write the measurements of all arms of one plan and seed; for the arguments see `safety_regions.behaviour.job`."""
    from safety_regions.behaviour import job
    from safety_regions.formats.contracts import CONSTRAINT, RESPONSES
    from safety_regions.formats.files import by_stem
    from safety_regions.formats.parquet import read_tables, write_table
    from safety_regions.formats.region import read_region
    from safety_regions.model.loading import load_with_base

    model = load_with_base(backbone | {"dtype": "float32"}, checkpoint, base)
    table = job.constrain(
        model, job.weights_before(model, before), read_region(region), [read_region(path) for path in utility],
        dict(read_tables(by_stem(responses), RESPONSES)), roles, plan, seed, labels, Path(journal),
        batch_size=batch_size, max_new_tokens=max_new_tokens,
    )  # fmt: skip
    write_table(output, table, CONSTRAINT, {**labels, **model.metadata, "roles": roles, "plan": plan})


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files, output = snakemake.params, snakemake.input, snakemake.output.arms
        constrain(
            region=files.region, utility=files.utility, responses=files.responses, roles=p.roles,
            checkpoint=files.checkpoint, base=files.base, before=files.before, backbone=p.backbone,
            plan=p.plan, seed=p.seed, batch_size=snakemake.resources.batch_size, max_new_tokens=p.max_new_tokens,
            labels=p.labels, journal=f"{output}.journal", output=output,
        )  # fmt: skip
