"""Split the pooled prompts of two sets at random, many times, and compare the regions of the two parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safety_regions.joblog import logged
from safety_regions.model.devices import assigned_gpus


def permute_labels(
    output: str | Path, responses: Sequence[str | Path], contrast: Sequence[str | Path], method: str, samples: int,
    keep: dict[str, str], shared: Sequence[str | Path], usable: Sequence[str | Path], splitting: dict, **job: Any,
) -> None:  # fmt: skip
    """Write the IoU of the two parts of every split in every cell; ``output`` is named after the pool of the sets.

    ``splitting``: see `overlap.labels.permute_labels`; ``job``: see `open_job`; the others are those of `score`."""
    import pyarrow as pa

    from safety_regions.formats.contracts import LABELS
    from safety_regions.formats.parquet import write_table
    from safety_regions.methods import load_method
    from safety_regions.overlap import labels
    from safety_regions.scoring.job import open_job
    from safety_regions.scoring.samples import choose_from
    from safety_regions.units.names import parse_name

    pool, *ordinary = (parse_name(Path(path).stem) for path in (output, *contrast))
    which = (samples, keep, shared, usable)
    sets = [choose_from(responses, parse_name(name), *which) for name in pool.datasets]
    against = choose_from(contrast, ordinary[0], *which) if ordinary else None
    scoring = open_job(method=load_method(method), contrast=against, scratch=Path(output).parent, **job)
    found = pa.Table.from_pylist(
        labels.permute_labels(scoring, pool, sets, **splitting), schema=LABELS.schema
    )
    write_table(output, found, LABELS, {"name": str(pool)})


if __name__ == "__main__":
    with logged(snakemake.log[0]), assigned_gpus(snakemake.resources.gpu):
        p, files, r, w = snakemake.params, snakemake.input, snakemake.resources, snakemake.wildcards
        permute_labels(
            output=snakemake.output.ious, labels={"backbone": w.backbone, "label": w.method}, card=p.backbone,
            checkpoint=files.checkpoint, base=files.base, before=files.before, method=p.method, options=p.options,
            kept=p.kept, samples=p.samples, keep=p.keep, responses=files.responses, contrast=files.contrast,
            shared=files.shared, usable=files.usable, adapter=files.adapter, batch_size=r.batch_size,
            memory_mb=r.mem_mb,
            splitting=p.splitting | {"removed": dict(zip(p.removed, files.removed, strict=True))},
        )  # fmt: skip
