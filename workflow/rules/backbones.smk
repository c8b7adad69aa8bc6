"""Backbones: train the organisms, and let every backbone answer the prompts.

IN   prompts/{dataset}.parquet; the card of a backbone
OUT  organisms/{organism}/ (a Hugging Face checkpoint, its training log, and the region that alignment could change),
     responses/{backbone}/{dataset}.parquet
"""


rule train_organism:
    input:
        prompts=lambda wc: collect(
            "<results>/prompts/{dataset}.parquet",
            dataset=STUDY.training_sets(wc.organism),
        ),
    output:
        checkpoint=collect(
            "<results>/organisms/{{organism}}/{file}", file=grid.CHECKPOINT_FILES
        ),
        truth="<results>/organisms/{organism}/truth.safetensors",
        log="<results>/organisms/{organism}/training.parquet",
    log:
        "<logs>/train_organism/{organism}.log",
    benchmark:
        "<benchmarks>/train_organism/{organism}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wc, attempt: memory_mb(STUDY.backbones[wc.organism], attempt),
        runtime=lambda wc, attempt: minutes(
            "train_organism", STUDY.backbones[wc.organism], attempt
        ),
    params:
        card=lambda wc: grid.training(STUDY.backbones[wc.organism]),
        code=lambda wc: script_version("train_organism.py", model_code(wc.organism)),
    message:
        "Training {wildcards.organism}: first to be helpful, then to refuse harmful prompts"
    script:
        "../scripts/train_organism.py"


rule write_responses:
    input:
        prompts="<results>/prompts/{dataset}.parquet",
        checkpoint=lambda wc: checkpoint_files(wc.backbone),
    output:
        responses="<results>/responses/{backbone}/{dataset}.parquet",
    log:
        "<logs>/write_responses/{backbone}/{dataset}.log",
    benchmark:
        "<benchmarks>/write_responses/{backbone}/{dataset}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wc, attempt: memory_mb(STUDY.backbones[wc.backbone], attempt),
        runtime=lambda wc, attempt: minutes(
            "write_responses", STUDY.backbones[wc.backbone], attempt
        ),
        gpu=lambda wc: gpus(STUDY.backbones[wc.backbone]),
        batch_size=32,
    params:
        backbone=lambda wc: grid.loading(STUDY.backbones[wc.backbone]),
        candidates=STUDY.samples["candidates"],
        evaluate=STUDY.samples["evaluate"],
        origin=STUDY.responses["origin"],
        text=STUDY.responses["text"],
        max_new_tokens=STUDY.responses["max_new_tokens"],
        drop_long=STUDY.samples["drop_long"],
        code=lambda wc: script_version("write_responses.py", model_code(wc.backbone)),
    message:
        "Generating the responses of {wildcards.backbone} to {wildcards.dataset}"
    script:
        "../scripts/write_responses.py"
