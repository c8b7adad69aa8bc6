"""Behaviour: change the weights of regions and of control regions, and measure what the backbone then says.

IN   regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors; responses/{backbone}/{dataset}.parquet;
     the backbone's checkpoint, and its weights before alignment
OUT  behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.arms.parquet,
     behaviour/{backbone}/{method}/{selection}/{refinement}.{ablation,effects,transfer}.parquet,
     behaviour/{ablation,effects,transfer}.parquet
"""


rule ablate:
    input:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors",
        utility=lambda wc: compared_regions(wc, "utility"),
        other=lambda wc: compared_regions(wc, "other"),
        responses=collect(
            "<results>/responses/{{backbone}}/{dataset}.parquet",
            dataset=sorted(grid.studied_datasets(STUDY)),
        ),
        checkpoint=lambda wc: checkpoint_files(wc.backbone),
        base=lambda wc: base_read_by_ablation(wc.backbone)["base"],
        before=lambda wc: base_read_by_ablation(wc.backbone)["before"],
        adapter=lambda wc: (
            adapter_files(wc.backbone) if STUDY.needs_adapter(wc.method) else []
        ),
    output:
        arms="<results>/behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.arms.parquet",
    log:
        "<logs>/ablate/{backbone}/{method}/{name}/{selection}/{refinement}.log",
    benchmark:
        "<benchmarks>/ablate/{backbone}/{method}/{name}/{selection}/{refinement}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wc, attempt: memory_mb(
            STUDY.backbones[wc.backbone], attempt, ABLATION_BYTES
        ),
        runtime=lambda wc, attempt: minutes(
            "ablate", STUDY.backbones[wc.backbone], attempt
        ),
        gpu=lambda wc: gpus(STUDY.backbones[wc.backbone], ABLATION_BYTES),
        batch_size=16,
    params:
        backbone=lambda wc: ablations.loading(STUDY, wc.backbone),
        family=lambda wc: STUDY.models[wc.backbone]["family"],
        utility=lambda wc: ablations.compared_sets(STUDY, dict(wc))["utility"],
        other=lambda wc: ablations.compared_sets(STUDY, dict(wc))["other"],
        roles=lambda wc: ablations.roles(STUDY),
        plan=lambda wc: ablations.plan(STUDY),
        max_new_tokens=STUDY.responses["max_new_tokens"],
        code=lambda wc: script_version(
            "ablate.py", model_code(wc.backbone), *ablations.operation_code(STUDY)
        ),
    message:
        "Changing the region of {wildcards.name} and its controls: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/ablate.py"


rule compare_effects:
    input:
        arms=lambda wc: collect(
            "<results>/behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.arms.parquet",
            name=sorted(STUDY.identification),
            **dict(wc),
        ),
        overlap="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.parquet",
    output:
        ablation="<results>/behaviour/{backbone}/{method}/{selection}/{refinement}.ablation.parquet",
        effects="<results>/behaviour/{backbone}/{method}/{selection}/{refinement}.effects.parquet",
        transfer="<results>/behaviour/{backbone}/{method}/{selection}/{refinement}.transfer.parquet",
    log:
        "<logs>/compare_effects/{backbone}/{method}/{selection}/{refinement}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=sorted(STUDY.identification),
        code=script_version("compare_effects.py"),
    message:
        "Comparing what regions do: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/compare_effects.py"


rule gather_behaviour:
    input:
        ablation=collect("<results>/behaviour/{cell}.ablation.parquet", cell=TESTED),
        effects=collect("<results>/behaviour/{cell}.effects.parquet", cell=TESTED),
        transfer=collect("<results>/behaviour/{cell}.transfer.parquet", cell=TESTED),
    output:
        ablation="<results>/behaviour/ablation.parquet",
        effects="<results>/behaviour/effects.parquet",
        transfer="<results>/behaviour/transfer.parquet",
    log:
        "<logs>/gather_behaviour.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("gather_behaviour.py"),
    message:
        "Collecting what all regions do"
    script:
        "../scripts/gather_behaviour.py"
