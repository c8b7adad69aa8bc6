"""Train the reference LoRA adapter of a backbone on its own refusals and answers."""

from pathlib import Path

from safety_regions.joblog import logged
from safety_regions.model.devices import lent_gpus

with logged(snakemake.log[0]), lent_gpus(snakemake.resources.gpu):
    from safety_regions.formats.contracts import ADAPTER_LOG, RESPONSES
    from safety_regions.formats.parquet import read_table, write_table
    from safety_regions.model.backbone import load_backbone
    from safety_regions.training.adapter import train_adapter

    p, files, log = snakemake.params, snakemake.input, snakemake.output.log
    responses = {Path(path).stem: read_table(path, RESPONSES) for path in files.responses}
    backbone = load_backbone(p.backbone, files.checkpoint)
    trained = train_adapter(backbone, p.plan, responses, Path(log).parent, snakemake.resources.batch_size)
    stamp = {"backbone": snakemake.wildcards.backbone, **backbone.stamp, **trained.stamp}
    write_table(log, trained.log, ADAPTER_LOG, stamp)
