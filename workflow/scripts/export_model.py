"""Write a backbone with one region changed as a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def export_model(
    region: str | Path, checkpoint: Sequence[str | Path], base: Sequence[str | Path], before: Sequence[str | Path],
    adapter: Sequence[str | Path], backbone: dict, family: str, operation: str, dose: float, labels: dict,
    directory: str | Path,
) -> None:  # fmt: skip
    """Write the files of the checkpoint; see `behaviour.export.export_model`."""
    from safety_regions.behaviour import export, job
    from safety_regions.formats.subspaces import read_any_region
    from safety_regions.model.loading import load_with_base
    from safety_regions.regions.lora_factors import read_factors

    model = load_with_base(backbone, checkpoint, base)
    export.export_model(
        model, job.weights_before(model, before), read_any_region(region), operation, dose, labels, Path(directory),
        read_factors(adapter, family, model.shapes) if adapter else None,
    )  # fmt: skip


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files = snakemake.params, snakemake.input
        export_model(
            region=files.region, checkpoint=files.checkpoint, base=files.base, before=files.before,
            adapter=files.adapter, backbone=p.backbone, family=p.family, operation=p.operation, dose=p.dose,
            labels=p.labels, directory=Path(snakemake.output.weights).parent,
        )  # fmt: skip
