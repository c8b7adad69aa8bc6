"""Backbones: convert GGUF files, train the organisms, and let every backbone answer the prompts.

IN   prompts/{dataset}.parquet; the card of a backbone
OUT  checkpoints/{backbone}/ (a Hugging Face checkpoint with the dequantised weights of a GGUF file),
     checkpoints/{backbone}.base.json (what a backbone and its base have in common),
     organisms/{organism}/ (a Hugging Face checkpoint, its training log, the region that alignment could change,
     and the weights before alignment),
     responses/{backbone}/{dataset}.parquet
"""


rule convert_gguf:
    input:
        file=lambda wc: STUDY.models[wc.backbone]["gguf"].get("path", []),
    output:
        checkpoint=collect(
            "<results>/checkpoints/{{backbone}}/{file}",
            file=[file for file in grid.CONVERTED_FILES if file != GGUF_FILE],
        ),
        facts=f"<results>/checkpoints/{{backbone}}/{GGUF_FILE}",
    log:
        "<logs>/convert_gguf/{backbone}.log",
    benchmark:
        "<benchmarks>/convert_gguf/{backbone}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wc, attempt: memory_mb(STUDY.models[wc.backbone], attempt, 8),
        runtime=lambda wc, attempt: minutes(
            "convert_gguf", STUDY.models[wc.backbone], attempt
        ),
    params:
        card=lambda wc: grid.converting(STUDY.models[wc.backbone]),
        code=script_version("convert_gguf.py"),
    message:
        "Converting the GGUF file of {wildcards.backbone} to a checkpoint"
    script:
        "../scripts/convert_gguf.py"


rule compare_pair:
    input:
        checkpoint=lambda wc: checkpoint_files(wc.backbone),
        base=lambda wc: base_files(wc.backbone),
    output:
        pair="<results>/checkpoints/{backbone}.base.json",
    log:
        "<logs>/compare_pair/{backbone}.log",
    conda:
        "../../envs/model.yaml"
    params:
        card=lambda wc: grid.paired(STUDY.backbones[wc.backbone]),
        code=script_version("compare_pair.py"),
    message:
        "Comparing {wildcards.backbone} with its base"
    script:
        "../scripts/compare_pair.py"


rule train_organism:
    input:
        prompts=lambda wc: collect(
            "<results>/prompts/{dataset}.parquet",
            dataset=STUDY.training_sets(wc.organism),
        ),
        base=lambda wc: base_files(wc.organism),
    output:
        checkpoint=collect(
            "<results>/organisms/{{organism}}/{file}", file=grid.CHECKPOINT_FILES
        ),
        truth="<results>/organisms/{organism}/truth.safetensors",
        base="<results>/organisms/{organism}/base.safetensors",
        log="<results>/organisms/{organism}/training.parquet",
    log:
        "<logs>/train_organism/{organism}.log",
    benchmark:
        "<benchmarks>/train_organism/{organism}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: lambda wc: training_threads(STUDY.backbones[wc.organism])
    resources:
        mem_mb=lambda wc, attempt: memory_mb(
            STUDY.backbones[wc.organism], attempt, TRAINING_BYTES
        ),
        gpu=lambda wc: gpus_of(wc.organism, TRAINING_BYTES),
        runtime=lambda wc, attempt: minutes(
            "train_organism", STUDY.backbones[wc.organism], attempt
        ),
    params:
        card=lambda wc: grid.training(STUDY.backbones[wc.organism]),
        threads=lambda wc: training_threads(STUDY.backbones[wc.organism]),
        code=lambda wc: script_version("train_organism.py", model_code(wc.organism)),
    message:
        "Training {wildcards.organism} to refuse harmful prompts"
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
        gpu=lambda wc: gpus_of(wc.backbone),
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
