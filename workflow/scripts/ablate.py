"""Change the weights of one region and of its controls, and measure what the backbone then says."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def ablate(
    region: str | Path, utility: Mapping[str, str], other: Mapping[str, str], responses: Sequence[str | Path],
    roles: dict[str, str], checkpoint: Sequence[str | Path], base: Sequence[str | Path],
    before: Sequence[str | Path], adapter: Sequence[str | Path], backbone: dict, family: str, plan: dict,
    batch_size: int, max_new_tokens: int, labels: dict, journal: str | Path, outputs: Sequence[str | Path],
) -> None:  # fmt: skip
    """Write the measurements of all arms of one region, and what they answered.

    For the arguments see `safety_regions.behaviour.job`; ``outputs`` are two files.
    """
    from safety_regions.behaviour import job
    from safety_regions.behaviour.ablation import Plan
    from safety_regions.formats.contracts import RESPONSES
    from safety_regions.formats.files import by_stem
    from safety_regions.formats.parquet import read_tables, write_table
    from safety_regions.model.loading import load_with_base
    from safety_regions.regions.lora_factors import read_factors

    model = load_with_base(backbone, checkpoint, base)
    factors = read_factors(adapter, family, model.shapes) if adapter else None
    tables = job.ablate(
        model, job.weights_before(model, before), job.read_regions(region, utility, other),
        dict(read_tables(by_stem(responses), RESPONSES)), roles, Plan(**plan), Path(journal),
        batch_size=batch_size, max_new_tokens=max_new_tokens, factors=factors,
    )  # fmt: skip
    for output, (contract, table) in zip(outputs, tables.items(), strict=True):
        write_table(output, table, contract, {**labels, **model.metadata, "roles": roles, "plan": plan})


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files, outputs = snakemake.params, snakemake.input, snakemake.output
        ablate(
            region=files.region, utility=dict(zip(p.utility, files.utility, strict=True)),
            other=dict(zip(p.other, files.other, strict=True)), responses=files.responses, roles=p.roles,
            checkpoint=files.checkpoint, base=files.base, before=files.before, adapter=files.adapter,
            backbone=p.backbone, family=p.family, plan=p.plan, batch_size=snakemake.resources.batch_size,
            max_new_tokens=p.max_new_tokens, labels=p.labels, journal=f"{outputs.arms}.journal",
            outputs=[outputs.arms, outputs.answers],
        )  # fmt: skip
