"""Score the units of a backbone with one method on the prompts of a name, or of a frame of names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safety_regions.formats.files import frame_files
from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus

Paths = Mapping[str, str | Path]


def score(
    outputs: Paths, sampled: Paths, responses: Sequence[str | Path], contrast: Sequence[str | Path], method: str,
    samples: int, keep: dict[str, str], shared: Sequence[str | Path], usable: Sequence[str | Path], scratch: Path,
    **job: Any,
) -> None:  # fmt: skip
    """Write the score tables of names. What a method measures is measured once for names that differ in their shuffle.

    Args:
        outputs, sampled: name -> file for its scores, and for those of the fixed sample of units.
        responses, contrast: answers to the prompts of the names, and to ordinary ones.
        method: its name; ``samples``, ``keep``, ``shared``, ``usable``: see `choose_from`; the others: `open_job`.
    """
    from safety_regions.methods import load_method
    from safety_regions.scoring.job import open_job
    from safety_regions.scoring.samples import choose_from
    from safety_regions.units.names import parse_name, with_same_prompts

    which = samples, keep, shared, usable
    against = choose_from(contrast, parse_name(Path(contrast[0]).stem), *which) if contrast else None
    scoring = open_job(method=load_method(method), contrast=against, scratch=scratch, **job)
    for names in with_same_prompts(outputs):
        paths, of_sample = ([files[str(name)] for name in names] for files in (outputs, sampled))
        scoring.write(paths, of_sample, names, choose_from(responses, names[0], *which))


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files, r, w = snakemake.params, snakemake.input, snakemake.resources, snakemake.wildcards
        folder = Path(snakemake.output.get("frame") or Path(snakemake.output.scores).parent)
        outputs, sampled = (frame_files(folder, p.names, end) for end in (".parquet", ".sample.parquet"))
        score(
            outputs=outputs, sampled=sampled, card=p.backbone, scratch=Path(snakemake.output[0]).parent,
            labels={"backbone": w.backbone, "label": w.method, "code": p.code}, checkpoint=files.checkpoint,
            base=files.base, before=files.before, method=p.method, options=p.options, kept=p.kept, samples=p.samples,
            keep=p.keep, responses=files.responses, contrast=files.contrast, shared=files.shared, usable=files.usable,
            adapter=files.adapter, batch_size=r.batch_size, memory_mb=r.mem_mb,
        )  # fmt: skip
