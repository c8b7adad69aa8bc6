"""Score the units of a backbone with one method on the answered prompts of a name, and of its shuffles."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def score(
    outputs: Sequence[str | Path], labels: dict[str, str], card: dict, checkpoint: Sequence[str | Path],
    method: str, options: dict, kept: dict[str, float], samples: int, keep: dict[str, str],
    responses: Sequence[str | Path], contrast: Sequence[str | Path], shared: Sequence[str | Path],
    usable: Sequence[str | Path], adapter: Sequence[str | Path], batch_size: int, memory_mb: int,
) -> None:  # fmt: skip
    """Write the score tables of names that differ only in their shuffle; each of ``outputs`` is named after its name.

    ``contrast``: answers to ordinary prompts; ``responses``, ``shared``, ``usable``: see `choose_from`."""
    from safety_regions.formats.contracts import score_contract
    from safety_regions.formats.parquet import write_groups
    from safety_regions.methods import load_method
    from safety_regions.model.loading import load_backbone
    from safety_regions.scoring import run
    from safety_regions.scoring.samples import choose_from
    from safety_regions.units.names import parse_name

    names, ordinary = ([parse_name(Path(path).stem) for path in paths] for paths in (outputs, contrast))
    chosen = choose_from(responses, names[0], samples, keep, shared, usable)
    against = choose_from(contrast, ordinary[0], samples, keep, shared, usable) if ordinary else None
    backbone, folder = load_backbone(card, checkpoint), Path(adapter[0]).parent if adapter else None
    job = run.Job(load_method(method), options, kept, batch_size, memory_mb * 10**6, Path(outputs[0]).parent)
    scores = run.score(backbone, names, job, chosen, against, folder)
    for path, (groups, own) in zip(outputs, scores, strict=True):
        write_groups(path, groups, score_contract(own["granularity"]), labels | backbone.metadata | own)


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files, r, w = snakemake.params, snakemake.input, snakemake.resources, snakemake.wildcards
        score(
            outputs=snakemake.output, labels={"backbone": w.backbone, "label": w.method}, card=p.backbone,
            checkpoint=files.checkpoint, method=p.method, options=p.options, kept=p.kept, samples=p.samples,
            keep=p.keep, responses=files.responses, contrast=files.contrast, shared=files.shared,
            usable=files.usable, adapter=files.adapter, batch_size=r.batch_size, memory_mb=r.mem_mb,
        )  # fmt: skip
