"""Scores: run a method on the answered prompts of a name, and store the best fraction of each scope.

A frame is a folder with the scores of a dataset's halves and shuffles, which its own are compared with: one job.

IN   responses/{backbone}/{dataset}.parquet for the datasets of the name; the backbone's checkpoint
OUT  scores/{backbone}/{method}/{name}.parquet, and .sample.parquet with the scores of a fixed sample of units;
     scores/{backbone}/{method}/{dataset}.frame/{name}.parquet and .sample.parquet;
     usable/{backbone}.parquet if sets are cut to the smallest; overlap/{backbone}/{method}/labels/{name}.parquet if the
     config asks for label permutations
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
        unpack(scoring_inputs),
    output:
        scores="<results>/scores/{backbone}/{method}/{name}.parquet",
        sample="<results>/scores/{backbone}/{method}/{name}.sample.parquet",
    log:
        "<logs>/score/{backbone}/{method}/{name}.log",
    benchmark:
        "<benchmarks>/score/{backbone}/{method}/{name}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        **scoring_resources("score"),
    params:
        **scoring_params("score.py"),
        names=lambda wc: [wc.name],
    message:
        "Scoring {wildcards.backbone} with {wildcards.method} on {wildcards.name}"
    script:
        "../scripts/score.py"


use rule score as score_frame with:
    output:
        frame=directory("<results>/scores/{backbone}/{method}/{name}.frame"),
    log:
        "<logs>/score_frame/{backbone}/{method}/{name}.log",
    benchmark:
        "<benchmarks>/score_frame/{backbone}/{method}/{name}.tsv"
    wildcard_constraints:
        name=DATASET,
    resources:
        **scoring_resources("score_frame"),
    params:
        **scoring_params("score.py"),
        names=lambda wc: grid.scored_frame(STUDY, wc.method, wc.name),
    message:
        "Scoring {wildcards.backbone} with {wildcards.method} on halves and shuffles of {wildcards.name}"


rule permute_labels:
    input:
        unpack(scoring_inputs),
        removed=lambda wc: [
            removed_region(wc.backbone, wc.method, cell["utility"], cell["selection"])
            for cell in comparisons.permuted_refinements(STUDY, wc.method)
        ],
    output:
        ious="<results>/overlap/{backbone}/{method}/labels/{name}.parquet",
    log:
        "<logs>/permute_labels/{backbone}/{method}/{name}.log",
    benchmark:
        "<benchmarks>/permute_labels/{backbone}/{method}/{name}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        **scoring_resources("permute_labels"),
    params:
        **scoring_params("permute_labels.py"),
        splitting=lambda wc: {
            "permutations": STUDY.label_permutations,
            "cells": comparisons.permuted_cells(STUDY, wc.method),
            "allow_empty": STUDY.allow_empty,
        },
        removed=lambda wc: [
            f"{cell['selection']}/{cell['refinement']}"
            for cell in comparisons.permuted_refinements(STUDY, wc.method)
        ],
    message:
        "Splitting the prompts of {wildcards.name} at random: {wildcards.backbone}/{wildcards.method}"
    script:
        "../scripts/permute_labels.py"
