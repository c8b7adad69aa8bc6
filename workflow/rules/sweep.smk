"""Sweep: measurements of a method on the backbone after scoring, e.g. refusals while ranges of layers are scaled.

IN   scores/{backbone}/{method}/{name}.parquet or the frame that holds it; prompts/{dataset}.parquet of the dataset
     named in the method's options; the backbone's checkpoint
OUT  scores/{backbone}/{method}/{name}.sweep.parquet
"""


rule sweep:
    input:
        scores=lambda wc: scores_of(wc, [wc.name]),
        prompts=lambda wc: f"<results>/prompts/{STUDY.swept_dataset(wc.method)}.parquet",
        checkpoint=lambda wc: checkpoint_files(wc.backbone),
    output:
        sweep="<results>/scores/{backbone}/{method}/{name}.sweep.parquet",
    log:
        "<logs>/sweep/{backbone}/{method}/{name}.log",
    benchmark:
        "<benchmarks>/sweep/{backbone}/{method}/{name}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wc, attempt: memory_mb(STUDY.backbones[wc.backbone], attempt),
        runtime=lambda wc, attempt: minutes(
            "sweep", STUDY.backbones[wc.backbone], attempt
        ),
        gpu=lambda wc: gpus_of(wc.backbone),
        batch_size=32,
    params:
        name=lambda wc: wc.name,
        backbone=lambda wc: grid.loading(STUDY.backbones[wc.backbone]),
        method=lambda wc: STUDY.methods[wc.method].module,
        options=lambda wc: dict(sorted(STUDY.methods[wc.method].options.items())),
        code=lambda wc: script_version(
            "sweep.py",
            model_code(wc.backbone),
            method_module(STUDY.methods[wc.method].module, "sweep"),
        ),
    message:
        "Running the sweep of {wildcards.method} on {wildcards.backbone} with the scores of {wildcards.name}"
    script:
        "../scripts/sweep.py"
