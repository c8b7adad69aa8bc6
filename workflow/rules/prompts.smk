"""Prompts: read every dataset into one table, and assign each prompt to a split and a half.

IN   the card of a dataset; its embedded file, its file in data_dir, or the Hugging Face Hub
OUT  prompts/{dataset}.parquet, prompts/shared_prompts.parquet; prompts/{dataset}.shared.parquet if shared prompts are
     dropped
"""


rule read_prompts:
    input:
        lambda wc: STUDY.source_files(wc.dataset),
    output:
        prompts="<results>/prompts/{dataset}.parquet",
    log:
        "<logs>/read_prompts/{dataset}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        card=lambda wc: grid.reading(STUDY, wc.dataset)["card"],
        data_dir=lambda wc: grid.reading(STUDY, wc.dataset)["data_dir"],
        seed=STUDY.seed,
        evaluate_fraction=STUDY.samples["evaluate_fraction"],
        code=script_version("read_prompts.py"),
    message:
        "Reading the prompts of {wildcards.dataset}"
    script:
        "../scripts/read_prompts.py"


rule compare_prompts:
    input:
        prompts=collect(
            "<results>/prompts/{dataset}.parquet", dataset=grid.studied_datasets(STUDY)
        ),
    output:
        shared="<results>/prompts/shared_prompts.parquet",
    log:
        "<logs>/compare_prompts.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("compare_prompts.py"),
    message:
        "Looking for prompts that datasets share"
    script:
        "../scripts/compare_prompts.py"


rule compare_with_earlier:
    input:
        prompts=lambda wc: collect(
            "<results>/prompts/{dataset}.parquet",
            dataset=grid.up_to(STUDY, wc.dataset),
        ),
    output:
        shared="<results>/prompts/{dataset}.shared.parquet",
    log:
        "<logs>/compare_with_earlier/{dataset}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("compare_with_earlier.py"),
    message:
        "Looking for prompts of {wildcards.dataset} that sets before it in the alphabet have too"
    script:
        "../scripts/compare_with_earlier.py"
