"""Train the reference LoRA adapter of a backbone on its own refusals and answers."""

from pathlib import Path

from safety_regions.devices import lent_gpus
from safety_regions.joblog import logged

with logged(snakemake.log[0]), lent_gpus(snakemake.resources.gpu):
    from safety_regions.adapters.training import ADAPTER_LOG, train_adapter
    from safety_regions.backbone import load_backbone
    from safety_regions.tables import RESPONSES, read_table, write_table

    p, files, log = snakemake.params, snakemake.input, snakemake.output.log
    responses = {Path(path).stem: read_table(path, RESPONSES) for path in files.responses}
    backbone = load_backbone(p.backbone, files.checkpoint)
    trained = train_adapter(backbone, p.plan, responses, Path(log).parent, snakemake.resources.batch_size)
    stamp = {"backbone": snakemake.wildcards.backbone, **backbone.stamp, **trained.stamp}
    write_table(log, trained.log, ADAPTER_LOG, stamp)
