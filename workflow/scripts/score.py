"""Score the units of a backbone with one method on the answered prompts of a name, and of its shuffles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def score(
    outputs: Sequence[str | Path], sampled: Sequence[str | Path], responses: Sequence[str | Path],
    contrast: Sequence[str | Path], method: str, samples: int, keep: dict[str, str], shared: Sequence[str | Path],
    usable: Sequence[str | Path], **job: Any,
) -> None:  # fmt: skip
    """Write the score tables of names that differ only in their shuffle; each of ``outputs`` is named after its name.

    Args:
        sampled: files for the scores of the fixed sample of units, one per name.
        responses, contrast: answers to the prompts of the names, and to ordinary ones.
        method: its name; ``samples``, ``keep``, ``shared``, ``usable``: see `choose_from`; ``job``: see `open_job`.
    """
    from safety_regions.methods import load_method
    from safety_regions.scoring.job import open_job
    from safety_regions.scoring.samples import choose_from
    from safety_regions.units.names import parse_name

    names, ordinary = ([parse_name(Path(path).stem) for path in paths] for paths in (outputs, contrast))
    which = (samples, keep, shared, usable)
    chosen = choose_from(responses, names[0], *which)
    against = choose_from(contrast, ordinary[0], *which) if ordinary else None
    scratch = Path(outputs[0]).parent
    scoring = open_job(method=load_method(method), contrast=against, scratch=scratch, **job)
    scoring.write(outputs, sampled, names, chosen)


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files, r, w = snakemake.params, snakemake.input, snakemake.resources, snakemake.wildcards
        score(
            outputs=snakemake.output.scores, sampled=snakemake.output.sample, card=p.backbone,
            labels={"backbone": w.backbone, "label": w.method, "code": p.code}, checkpoint=files.checkpoint,
            base=files.base, before=files.before, method=p.method, options=p.options, kept=p.kept, samples=p.samples,
            keep=p.keep, responses=files.responses, contrast=files.contrast, shared=files.shared, usable=files.usable,
            adapter=files.adapter, batch_size=r.batch_size, memory_mb=r.mem_mb,
        )  # fmt: skip
