"""Behaviour: change the weights of regions and of control regions, and measure what the backbone then says.

IN   regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors; responses/{backbone}/{dataset}.parquet;
     the backbone's checkpoint, and its weights before alignment
OUT  behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.arms.parquet,
     behaviour/{backbone}/{method}/{selection}/{refinement}.{ablation,effects,transfer}.parquet,
     for regions from files {region}/{region} and given/{region}/raw in the place of these,
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
        labels=lambda wc: dict(wc),
        max_new_tokens=STUDY.responses["max_new_tokens"],
        code=lambda wc: script_version(
            "ablate.py", model_code(wc.backbone), *ablations.operation_code(STUDY)
        ),
    message:
        "Changing the region of {wildcards.name} and its controls: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/ablate.py"


use rule ablate as ablate_given with:
    input:
        region=given_region,
        utility=[],
        other=[],
        responses=collect(
            "<results>/responses/{{backbone}}/{dataset}.parquet",
            dataset=sorted(grid.studied_datasets(STUDY)),
        ),
        checkpoint=lambda wc: checkpoint_files(wc.backbone),
        base=lambda wc: base_read_by_ablation(wc.backbone)["base"],
        before=lambda wc: base_read_by_ablation(wc.backbone)["before"],
        adapter=[],
    output:
        arms="<results>/behaviour/{backbone}/given/{region}.arms.parquet",
    log:
        "<logs>/ablate_given/{backbone}/{region}.log",
    benchmark:
        "<benchmarks>/ablate_given/{backbone}/{region}.tsv"
    params:
        backbone=lambda wc: ablations.loading(STUDY, wc.backbone),
        family=lambda wc: STUDY.models[wc.backbone]["family"],
        utility=[],
        other=[],
        roles=lambda wc: ablations.roles(STUDY),
        plan=lambda wc: ablations.plan(STUDY),
        labels=lambda wc: {
            "backbone": wc.backbone,
            "method": "given",
            "name": wc.region,
        },
        max_new_tokens=STUDY.responses["max_new_tokens"],
        code=lambda wc: script_version(
            "ablate.py", model_code(wc.backbone), *ablations.operation_code(STUDY)
        ),
    message:
        "Changing the region {wildcards.region} of {wildcards.backbone} and its controls"


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
        cell=lambda wc: dict(wc),
        code=script_version("compare_effects.py"),
    message:
        "Comparing what regions do: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/compare_effects.py"


use rule compare_effects as compare_effects_given with:
    input:
        arms=["<results>/behaviour/{backbone}/given/{region}.arms.parquet"],
        overlap=[],
    output:
        ablation="<results>/behaviour/{backbone}/given/{region}/raw.ablation.parquet",
        effects="<results>/behaviour/{backbone}/given/{region}/raw.effects.parquet",
        transfer="<results>/behaviour/{backbone}/given/{region}/raw.transfer.parquet",
    log:
        "<logs>/compare_effects_given/{backbone}/{region}.log",
    params:
        names=lambda wc: [wc.region],
        cell=lambda wc: {
            "backbone": wc.backbone,
            "method": "given",
            "selection": wc.region,
            "refinement": "raw",
        },
        code=script_version("compare_effects.py"),
    message:
        "Comparing what the region {wildcards.region} of {wildcards.backbone} does"


rule gather_behaviour:
    input:
        ablation=collect(
            "<results>/behaviour/{cell}.ablation.parquet", cell=TESTED + GIVEN
        ),
        effects=collect(
            "<results>/behaviour/{cell}.effects.parquet", cell=TESTED + GIVEN
        ),
        transfer=collect(
            "<results>/behaviour/{cell}.transfer.parquet", cell=TESTED + GIVEN
        ),
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
