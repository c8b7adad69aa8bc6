"""Let a backbone answer the candidates and the held-out prompts of one dataset."""

from safety_regions.devices import lent_gpus
from safety_regions.joblog import logged

with logged(snakemake.log[0]), lent_gpus(snakemake.resources.gpu):
    from safety_regions.backbone import load_backbone
    from safety_regions.behaviour.responses import respond
    from safety_regions.prompts.splitting import first_of_splits
    from safety_regions.tables import PROMPTS, RESPONSES, read_table, write_table

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
