"""Scale ranges of a backbone's layers and count the harmless questions it then refuses."""

from safety_regions.joblog import logged
from safety_regions.model.devices import lent_gpus

with logged(snakemake.log[0]), lent_gpus(snakemake.resources.gpu):
    from safety_regions.formats.contracts import LAYER_SWEEP, PROMPTS
    from safety_regions.formats.parquet import read_stamp, read_table, write_table
    from safety_regions.methods.safelayer.sweep import sweep_layers
    from safety_regions.model.backbone import load_backbone

    p, files = snakemake.params, snakemake.input
    stamp = read_stamp(files.scores)
    questions = read_table(files.questions[0], PROMPTS)["text"].to_pylist()
    backbone = load_backbone(p.backbone, files.checkpoint)
    gap = stamp["found"]["gap"]
    sweep = sweep_layers(backbone, questions, gap, p.options, snakemake.resources.batch_size)
    write_table(snakemake.output.sweep, sweep.table, LAYER_SWEEP, {**stamp, "found": sweep.found})
