"""Scores: run a method on the answered prompts of a name, and store the best fraction of each scope.

One job computes all shuffles of a name in one pass.

IN   responses/{backbone}/{dataset}.parquet for the datasets of the name; the backbone's checkpoint
OUT  scores/{backbone}/{method}/{name}.parquet; usable/{backbone}.parquet if sets are cut to the smallest
"""


rule count_usable:
    input:
        responses=collect(
            "<results>/responses/{{backbone}}/{dataset}.parquet",
            dataset=sorted(STUDY.identification),
        ),
        shared=shared_tables(*sorted(STUDY.identification)),
    output:
        usable="<results>/usable/{backbone}.parquet",
    log:
        "<logs>/count_usable/{backbone}.log",
    conda:
        "../../envs/model.yaml"
    params:
        keep=grid.keep_of(STUDY, *sorted(STUDY.identification)),
        code=script_version("count_usable.py"),
    message:
        "Counting the usable prompts of {wildcards.backbone}"
    script:
        "../scripts/count_usable.py"


rule score:
    input:
        responses=lambda wc: collect(
            "<results>/responses/{backbone}/{dataset}.parquet",
            backbone=wc.backbone,
            dataset=grid.name_datasets(wc.name),
        ),
        contrast=lambda wc: collect(
            "<results>/responses/{backbone}/{dataset}.parquet",
            backbone=wc.backbone,
            dataset=STUDY.contrast_of(wc.method) or [],
        ),
        adapter=lambda wc: (
            adapter_files(wc.backbone) if STUDY.needs_adapter(wc.method) else []
        ),
        checkpoint=lambda wc: checkpoint_files(wc.backbone),
        shared=lambda wc: shared_tables(wc.name, STUDY.contrast_of(wc.method)),
        usable=lambda wc: collect(
            "<results>/usable/{backbone}.parquet",
            backbone=wc.backbone if STUDY.samples["equal"] else [],
        ),
    output:
        scores="<results>/scores/{backbone}/{method}/{name}.parquet",
    log:
        "<logs>/score/{backbone}/{method}/{name}.log",
    benchmark:
        "<benchmarks>/score/{backbone}/{method}/{name}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wc, attempt: memory_mb(
            STUDY.backbones[wc.backbone], attempt, kept_of(wc.method)
        ),
        runtime=lambda wc, attempt: minutes(
            "score", STUDY.backbones[wc.backbone], attempt
        ),
        gpu=lambda wc: gpus(STUDY.backbones[wc.backbone], kept_of(wc.method)),
        batch_size=8,
    params:
        backbone=lambda wc: grid.loading(STUDY.backbones[wc.backbone]),
        method=lambda wc: STUDY.methods[wc.method].module,
        options=lambda wc: dict(sorted(STUDY.methods[wc.method].options.items())),
        kept=lambda wc: dict(sorted(STUDY.methods[wc.method].kept.items())),
        samples=STUDY.samples["identify"],
        keep=lambda wc: grid.keep_of(STUDY, wc.name, STUDY.contrast_of(wc.method)),
        code=lambda wc: script_version(
            "score.py",
            model_code(wc.backbone),
            method_module(STUDY.methods[wc.method].module),
        ),
    message:
        "Scoring {wildcards.backbone} with {wildcards.method} on {wildcards.name}"
    script:
        "../scripts/score.py"


if "" in SHUFFLE_KINDS:

    ruleorder: score_shuffles > score

    use rule score as score_shuffles with:
        output:
            scores=shuffled_scores(""),
        log:
            "<logs>/score_shuffles/{backbone}/{method}/{name}.log",
        benchmark:
            "<benchmarks>/score_shuffles/{backbone}/{method}/{name}.tsv"
        message:
            "Scoring {wildcards.backbone} with {wildcards.method} on {wildcards.name}, shuffled within matrices"


if "r" in SHUFFLE_KINDS:

    ruleorder: score_row_shuffles > score

    use rule score as score_row_shuffles with:
        output:
            scores=shuffled_scores("r"),
        log:
            "<logs>/score_row_shuffles/{backbone}/{method}/{name}.log",
        benchmark:
            "<benchmarks>/score_row_shuffles/{backbone}/{method}/{name}.tsv"
        message:
            "Scoring {wildcards.backbone} with {wildcards.method} on {wildcards.name}, shuffled within rows"


if "m" in SHUFFLE_KINDS:

    ruleorder: score_marginal_shuffles > score

    use rule score as score_marginal_shuffles with:
        output:
            scores=shuffled_scores("m"),
        log:
            "<logs>/score_marginal_shuffles/{backbone}/{method}/{name}.log",
        benchmark:
            "<benchmarks>/score_marginal_shuffles/{backbone}/{method}/{name}.tsv"
        message:
            "Scoring {wildcards.backbone} with {wildcards.method} on {wildcards.name}, shuffled with row and column sums kept"
