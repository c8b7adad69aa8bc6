"""Behaviour: change the weights of regions and of control regions, or fine-tune the backbone with them constrained, and
measure what it then says.

IN   regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors; responses/{backbone}/{dataset}.parquet;
     the backbone's checkpoint, and its weights before alignment
OUT  behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.{arms,answers}.parquet,
     behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.{judge}.judged.parquet,
     behaviour/{backbone}/{method}/{selection}/{refinement}.{ablation,effects,transfer,transfer_pairs}.parquet,
     behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.{plan}-{seed}.constraint.parquet,
     behaviour/{backbone}/given/... for regions from files,
     exported/{backbone}/{method}/{name}/{selection}/{refinement}/{operation}-{dose}: changed models as checkpoints
     behaviour/{ablation,effects,transfer,transfer_pairs,constraint}.parquet
"""


rule ablate:
    input:
        **CHANGED_INPUTS,
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors",
        utility=lambda wc: compared_regions(wc, "utility"),
        other=lambda wc: compared_regions(wc, "other"),
        adapter=lambda wc: (
            adapter_files(wc.backbone) if STUDY.needs_adapter(wc.method) else []
        ),
    output:
        arms="<results>/behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.arms.parquet",
        answers="<results>/behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.answers.parquet",
    log:
        "<logs>/ablate/{backbone}/{method}/{name}/{selection}/{refinement}.log",
    benchmark:
        "<benchmarks>/ablate/{backbone}/{method}/{name}/{selection}/{refinement}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        **changed_resources("ablate", ABLATION_BYTES),
    params:
        **changed_params("ablate.py", ablations.ablation_operations(STUDY)),
        family=lambda wc: STUDY.models[wc.backbone]["family"],
        utility=lambda wc: ablations.compared_sets(STUDY, dict(wc))["utility"],
        other=lambda wc: ablations.compared_sets(STUDY, dict(wc))["other"],
        plan=lambda wc: ablations.plan(STUDY),
        labels=lambda wc: dict(wc),
    message:
        "Changing the region of {wildcards.name} and its controls: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/ablate.py"


use rule ablate as ablate_given with:
    input:
        **CHANGED_INPUTS,
        region=given_region,
        utility=[],
        other=[],
        adapter=[],
    output:
        arms="<results>/behaviour/{backbone}/given/{region}.arms.parquet",
        answers="<results>/behaviour/{backbone}/given/{region}.answers.parquet",
    log:
        "<logs>/ablate_given/{backbone}/{region}.log",
    benchmark:
        "<benchmarks>/ablate_given/{backbone}/{region}.tsv"
    params:
        **changed_params("ablate.py", ablations.ablation_operations(STUDY)),
        family=lambda wc: STUDY.models[wc.backbone]["family"],
        utility=[],
        other=[],
        plan=lambda wc: ablations.plan(STUDY),
        labels=given_labels,
    message:
        "Changing the region {wildcards.region} of {wildcards.backbone} and its controls"


rule judge_answers:
    input:
        answers="<results>/behaviour/{backbone}/{place}.answers.parquet",
        responses=CHANGED_INPUTS["responses"],
        checkpoint=lambda wc: checkpoint_files(wc.judge),
        adapter=lambda wc: ablations.judge_adapter(STUDY, wc.judge),
    output:
        judged="<results>/behaviour/{backbone}/{place}.{judge}.judged.parquet",
    log:
        "<logs>/judge_answers/{backbone}/{place}/{judge}.log",
    benchmark:
        "<benchmarks>/judge_answers/{backbone}/{place}/{judge}.tsv"
    wildcard_constraints:
        place=r"[a-z0-9_/-][a-z0-9_./-]*",
        judge="|".join(STUDY.judges) or "(?!)",
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wc, attempt: memory_mb(STUDY.judges[wc.judge], attempt),
        runtime=lambda wc, attempt: minutes(
            "judge_answers", STUDY.judges[wc.judge], attempt
        ),
        gpu=lambda wc: gpus_of(wc.judge),
        batch_size=8,
    params:
        card=lambda wc: grid.loading(STUDY.judges[wc.judge]),
        rules=lambda wc: STUDY.judges[wc.judge]["judge"],
        code=lambda wc: script_version("judge_answers.py", model_code(wc.judge)),
    message:
        "Judging answers of {wildcards.backbone} with {wildcards.judge}: {wildcards.place}"
    script:
        "../scripts/judge_answers.py"


rule compare_effects:
    input:
        arms=lambda wc: collect(
            "<results>/behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.arms.parquet",
            name=sorted(STUDY.identification),
            **dict(wc),
        ),
        judged=lambda wc: collect(
            "<results>/behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.{judge}.judged.parquet",
            name=sorted(STUDY.identification),
            judge=list(STUDY.judges),
            **dict(wc),
        ),
        overlap="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.parquet",
    output:
        ablation="<results>/behaviour/{backbone}/{method}/{selection}/{refinement}.ablation.parquet",
        effects="<results>/behaviour/{backbone}/{method}/{selection}/{refinement}.effects.parquet",
        transfer="<results>/behaviour/{backbone}/{method}/{selection}/{refinement}.transfer.parquet",
        transfer_pairs="<results>/behaviour/{backbone}/{method}/{selection}/{refinement}.transfer_pairs.parquet",
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
        judged=lambda wc: collect(
            "<results>/behaviour/{backbone}/given/{region}.{judge}.judged.parquet",
            judge=list(STUDY.judges),
            **dict(wc),
        ),
        overlap=[],
    output:
        ablation="<results>/behaviour/{backbone}/given/{region}/raw.ablation.parquet",
        effects="<results>/behaviour/{backbone}/given/{region}/raw.effects.parquet",
        transfer="<results>/behaviour/{backbone}/given/{region}/raw.transfer.parquet",
        transfer_pairs="<results>/behaviour/{backbone}/given/{region}/raw.transfer_pairs.parquet",
    log:
        "<logs>/compare_effects_given/{backbone}/{region}.log",
    params:
        names=lambda wc: [wc.region],
        cell=lambda wc: {
            key: value for key, value in given_labels(wc).items() if key != "name"
        },
        code=script_version("compare_effects.py"),
    message:
        "Comparing what the region {wildcards.region} of {wildcards.backbone} does"


rule constrain:
    input:
        **CHANGED_INPUTS,
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors",
        utility=constrained_utility,
    output:
        arms="<results>/behaviour/{backbone}/{method}/{name}/{selection}/{refinement}.{plan}-{seed}.constraint.parquet",
    log:
        "<logs>/constrain/{backbone}/{method}/{name}/{selection}/{refinement}/{plan}-{seed}.log",
    benchmark:
        "<benchmarks>/constrain/{backbone}/{method}/{name}/{selection}/{refinement}/{plan}-{seed}.tsv"
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        **changed_resources("constrain", TRAINING_BYTES),
    params:
        **changed_params("constrain.py", ablations.constraint_operations(STUDY)),
        plan=lambda wc: ablations.constraint_plan(STUDY, wc.plan),
        seed=lambda wc: int(wc.seed),
        labels=lambda wc: {
            key: value
            for key, value in dict(wc).items()
            if key not in ("plan", "seed")
        },
    message:
        "Fine-tuning {wildcards.backbone} with the region of {wildcards.name} constrained: {wildcards.plan}, seed {wildcards.seed}, {wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/constrain.py"


use rule constrain as constrain_given with:
    input:
        **CHANGED_INPUTS,
        region=given_region,
        utility=[],
    output:
        arms="<results>/behaviour/{backbone}/given/{region}.{plan}-{seed}.constraint.parquet",
    log:
        "<logs>/constrain_given/{backbone}/{region}/{plan}-{seed}.log",
    benchmark:
        "<benchmarks>/constrain_given/{backbone}/{region}/{plan}-{seed}.tsv"
    params:
        **changed_params("constrain.py", ablations.constraint_operations(STUDY)),
        plan=lambda wc: ablations.constraint_plan(STUDY, wc.plan),
        seed=lambda wc: int(wc.seed),
        labels=given_labels,
    message:
        "Fine-tuning {wildcards.backbone} with the region {wildcards.region} constrained: {wildcards.plan}, seed {wildcards.seed}"


rule export_model:
    input:
        checkpoint=CHANGED_INPUTS["checkpoint"],
        base=CHANGED_INPUTS["base"],
        before=CHANGED_INPUTS["before"],
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors",
        adapter=lambda wc: (
            adapter_files(wc.backbone) if STUDY.needs_adapter(wc.method) else []
        ),
    output:
        weights="<results>/exported/{backbone}/{method}/{name}/{selection}/{refinement}/{operation}-{dose}/model.safetensors",
        config="<results>/exported/{backbone}/{method}/{name}/{selection}/{refinement}/{operation}-{dose}/config.json",
    log:
        "<logs>/export_model/{backbone}/{method}/{name}/{selection}/{refinement}/{operation}-{dose}.log",
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        **changed_resources("export_model", ABLATION_BYTES),
    params:
        **exported_params(
            lambda wc: {
                key: value
                for key, value in dict(wc).items()
                if key not in ("operation", "dose")
            }
        ),
    message:
        "Writing {wildcards.backbone} with a changed region: {wildcards.operation} {wildcards.dose}, {wildcards.name}, {wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/export_model.py"


use rule export_model as export_given with:
    input:
        checkpoint=CHANGED_INPUTS["checkpoint"],
        base=CHANGED_INPUTS["base"],
        before=CHANGED_INPUTS["before"],
        region=given_region,
        adapter=[],
    output:
        weights="<results>/exported/{backbone}/given/{region}/{operation}-{dose}/model.safetensors",
        config="<results>/exported/{backbone}/given/{region}/{operation}-{dose}/config.json",
    log:
        "<logs>/export_given/{backbone}/{region}/{operation}-{dose}.log",
    params:
        **exported_params(given_labels),
    message:
        "Writing {wildcards.backbone} with the region {wildcards.region} changed: {wildcards.operation} {wildcards.dose}"


rule gather_constraint:
    input:
        constraint=CONSTRAINED,
    output:
        constraint="<results>/behaviour/constraint.parquet",
    log:
        "<logs>/gather_constraint.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("gather_behaviour.py"),
    message:
        "Collecting all fine-tuned models"
    script:
        "../scripts/gather_behaviour.py"


rule gather_behaviour:
    input:
        ablation=collect("<results>/behaviour/{cell}.ablation.parquet", cell=ABLATED),
        effects=collect("<results>/behaviour/{cell}.effects.parquet", cell=ABLATED),
        transfer=collect("<results>/behaviour/{cell}.transfer.parquet", cell=ABLATED),
        transfer_pairs=collect(
            "<results>/behaviour/{cell}.transfer_pairs.parquet", cell=ABLATED
        ),
    output:
        ablation="<results>/behaviour/ablation.parquet",
        effects="<results>/behaviour/effects.parquet",
        transfer="<results>/behaviour/transfer.parquet",
        transfer_pairs="<results>/behaviour/transfer_pairs.parquet",
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
