"""Let a backbone answer the candidates and the held-out prompts of one dataset."""

from safety_regions.joblog import logged
from safety_regions.model.devices import lent_gpus

with logged(snakemake.log[0]), lent_gpus(snakemake.resources.gpu):
    from safety_regions.formats.contracts import PROMPTS, RESPONSES
    from safety_regions.formats.parquet import read_table, write_table
    from safety_regions.model.backbone import load_backbone
    from safety_regions.model.responses import respond
    from safety_regions.prompts.splitting import first_of_splits

    p = snakemake.params
    prompts = first_of_splits(
        read_table(snakemake.input.prompts, PROMPTS), identify=p.candidates, evaluate=p.evaluate
    )
    backbone = load_backbone(p.backbone, snakemake.input.checkpoint)
    responses = respond(
        backbone,
        prompts,
        origin=p.origin,
        max_new_tokens=p.max_new_tokens,
        batch_size=snakemake.resources.batch_size,
    )
    stamp = {"backbone": snakemake.wildcards.backbone, **backbone.stamp, "max_new_tokens": p.max_new_tokens}
    write_table(snakemake.output.responses, responses, RESPONSES, stamp)
