"""Adapters: train one LoRA adapter for each backbone, for methods that score adapters, unless the config gives one.

IN   responses/{backbone}/{dataset}.parquet for the datasets of `adapters`; the backbone's checkpoint
OUT  adapters/{backbone}/ (in peft's format, with a training log that has the refusals of held-out harmful prompts)
"""


rule train_adapter:
    input:
        responses=collect(
            "<results>/responses/{{backbone}}/{dataset}.parquet",
            dataset=teachers(STUDY.adapters),
        ),
        checkpoint=lambda wc: checkpoint_files(wc.backbone),
    output:
        adapter=collect("<results>/adapters/{{backbone}}/{file}", file=ADAPTER_FILES),
        log="<results>/adapters/{backbone}/training.parquet",
    log:
        "<logs>/train_adapter/{backbone}.log",
    benchmark:
        "<benchmarks>/train_adapter/{backbone}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wc, attempt: memory_mb(STUDY.backbones[wc.backbone], attempt),
        runtime=lambda wc, attempt: minutes(
            "train_adapter", STUDY.backbones[wc.backbone], attempt
        ),
        gpu=lambda wc: gpus_of(wc.backbone),
        batch_size=8,
    params:
        backbone=lambda wc: grid.loading(STUDY.backbones[wc.backbone]),
        plan={
            key: value
            for key, value in sorted(STUDY.adapters.items())
            if key != "paths"
        },
        code=lambda wc: script_version("train_adapter.py", model_code(wc.backbone)),
    message:
        "Training the adapter of {wildcards.backbone}: supervised on safe responses, then preference training on refusals"
    script:
        "../scripts/train_adapter.py"
