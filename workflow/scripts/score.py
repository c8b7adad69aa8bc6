"""Score the units of a backbone with one method on the answered prompts of a name, and of its shuffles."""

from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import lent_gpus

with logged(snakemake.log[0]), lent_gpus(snakemake.resources.gpu):
    from safety_regions.formats.contracts import RESPONSES, SHARED_PROMPTS, score_contract
    from safety_regions.formats.parquet import read_table, write_groups
    from safety_regions.methods import load_method
    from safety_regions.model.backbone import load_backbone
    from safety_regions.scoring.run import Job, score
    from safety_regions.scoring.samples import choose
    from safety_regions.units.names import parse_name

    p, w, files = snakemake.params, snakemake.wildcards, snakemake.input
    names = [parse_name(Path(path).stem) for path in snakemake.output]

    def answered(paths):
        return {Path(path).stem: read_table(path, RESPONSES) for path in paths}

    shared = read_table(files.shared, SHARED_PROMPTS) if p.drop_shared else None
    chosen = choose(names[0], answered(files.responses), p.samples, p.keep, shared)
    contrast = (
        choose(parse_name(p.contrast), answered(files.contrast), p.samples, p.keep) if p.contrast else None
    )
    backbone = load_backbone(p.backbone, files.checkpoint)
    adapter = Path(files.adapter[0]).parent if files.adapter else None
    r = snakemake.resources
    memory, scratch = r.mem_mb * 10**6, Path(snakemake.output[0]).parent
    job = Job(load_method(p.method), p.options, p.kept, r.batch_size, memory, scratch)
    labels = {"backbone": w.backbone, "label": w.method, **backbone.stamp}
    scores = score(backbone, names, job, chosen, contrast, adapter)
    for path, (groups, stamp) in zip(snakemake.output, scores, strict=True):
        write_groups(path, groups, score_contract(stamp["granularity"]), {**labels, **stamp})
