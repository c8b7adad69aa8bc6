"""Sweep: ranges of layers are scaled and refusals of harmless questions counted; SafeLayer's own selections.

IN   scores/{backbone}/{method}/{name}.parquet of a method of layers; prompts/{over-rejection set}.parquet;
     the backbone's checkpoint
OUT  scores/{backbone}/{method}/{name}.sweep.parquet;
     regions/{backbone}/{method}/{name}/{range,gap}/raw.safetensors
"""


rule sweep_layers:
    input:
        scores="<results>/scores/{backbone}/{method}/{name}.parquet",
        questions=lambda wc: collect(
            "<results>/prompts/{dataset}.parquet",
            dataset=STUDY.methods[wc.method].options["over_rejection"],
        ),
        checkpoint=lambda wc: checkpoint_files(wc.backbone),
    output:
        sweep="<results>/scores/{backbone}/{method}/{name}.sweep.parquet",
    log:
        "<logs>/sweep_layers/{backbone}/{method}/{name}.log",
    benchmark:
        "<benchmarks>/sweep_layers/{backbone}/{method}/{name}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wc, attempt: memory_mb(STUDY.backbones[wc.backbone], attempt),
        runtime=lambda wc, attempt: minutes(
            "sweep_layers", STUDY.backbones[wc.backbone], attempt
        ),
        gpu=lambda wc: gpus(STUDY.backbones[wc.backbone]),
        batch_size=32,
    params:
        backbone=lambda wc: grid.loading(STUDY.backbones[wc.backbone]),
        options=lambda wc: dict(sorted(STUDY.methods[wc.method].options.items())),
        code=lambda wc: script_version("sweep_layers.py", model_code(wc.backbone)),
    message:
        "Scaling layers of {wildcards.backbone} from where {wildcards.method} on {wildcards.name} sees the gap open"
    script:
        "../scripts/sweep_layers.py"


rule select_range:
    input:
        sweep="<results>/scores/{backbone}/{method}/{name}.sweep.parquet",
    output:
        region="<results>/regions/{backbone}/{method}/{name}/range/raw.safetensors",
    log:
        "<logs>/select_range/{backbone}/{method}/{name}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("select_range.py"),
    message:
        "Taking the range that scaling found for {wildcards.backbone}/{wildcards.method}/{wildcards.name}"
    script:
        "../scripts/select_range.py"


rule select_gap:
    input:
        scores="<results>/scores/{backbone}/{method}/{name}.parquet",
    output:
        region="<results>/regions/{backbone}/{method}/{name}/gap/raw.safetensors",
    log:
        "<logs>/select_gap/{backbone}/{method}/{name}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("select_gap.py"),
    message:
        "Taking the layers where the gap opens for {wildcards.backbone}/{wildcards.method}/{wildcards.name}"
    script:
        "../scripts/select_gap.py"
