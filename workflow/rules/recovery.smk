"""Recovery: compare what the methods found in an organism with the region that was planted in it, and with the regions
planted in organisms that differ from it only in the place and the training seed.

IN   organisms/{organism}/truth.safetensors of the organism and of its group; regions/... and scores/... of the organism,
     and .sample.parquet of scores that are not all stored; for regions of ranks also the checkpoint and base.safetensors
OUT  recovery/{organism}.parquet, and {organism}.change.safetensors (the directions in which alignment changed it)
"""

from safety_regions.study.plants import group_of


rule write_change:
    input:
        checkpoint=lambda wc: checkpoint_files(wc.organism),
        before="<results>/organisms/{organism}/base.safetensors",
    output:
        change="<results>/recovery/{organism}.change.safetensors",
    log:
        "<logs>/write_change/{organism}.log",
    conda:
        "../../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wc, attempt: memory_mb(
            STUDY.backbones[wc.organism], attempt, BASE_BYTES
        ),
        runtime=lambda wc, attempt: minutes(
            "write_change", STUDY.backbones[wc.organism], attempt
        ),
        gpu=lambda wc: gpus_of(wc.organism, BASE_BYTES),
    params:
        card=lambda wc: grid.loading(STUDY.backbones[wc.organism]),
        fraction=grid.recovered_ranks(STUDY),
        code=lambda wc: script_version("write_change.py", model_code(wc.organism)),
    message:
        "Finding the directions in which alignment changed {wildcards.organism}"
    script:
        "../scripts/write_change.py"


rule measure_recovery:
    input:
        truths=lambda wc: collect(
            "<results>/organisms/{organism}/truth.safetensors",
            organism=group_of(STUDY, wc.organism),
        ),
        scores=lambda wc: [
            f"<results>/scores/{wc.organism}/{row['method']}/{row['name']}.parquet"
            for row in grid.scored_methods(STUDY)
        ],
        samples=lambda wc: [
            f"<results>/scores/{wc.organism}/{row['method']}/{row['name']}.sample.parquet"
            for row in grid.sampled_scores(STUDY)
        ],
        regions=lambda wc: [
            "<results>/regions/{organism}/{method}/{name}/{selection}/{refinement}.safetensors".format(
                organism=wc.organism, **row
            )
            for row in grid.recovered_regions(STUDY)
        ],
        removed=lambda wc: [
            removed_region(wc.organism, row["method"], row["name"], row["selection"])
            for row in grid.removed_regions(STUDY)
        ],
        adapter=lambda wc: (
            adapter_files(wc.organism)
            if any(map(STUDY.needs_adapter, STUDY.methods))
            else []
        ),
        changes=lambda wc: collect(
            "<results>/recovery/{organism}.change.safetensors",
            organism=(
                group_of(STUDY, wc.organism) if grid.recovered_ranks(STUDY) else []
            ),
        ),
    output:
        recovery="<results>/recovery/{organism}.parquet",
    log:
        "<logs>/measure_recovery/{organism}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        truths=lambda wc: group_of(STUDY, wc.organism),
        scores=grid.scored_methods(STUDY),
        samples=grid.sampled_scores(STUDY),
        regions=grid.recovered_regions(STUDY),
        removed=grid.removed_regions(STUDY),
        family=lambda wc: STUDY.backbones[wc.organism]["family"],
        code=lambda wc: script_version("measure_recovery.py", model_code(wc.organism)),
    message:
        "Comparing the regions found in {wildcards.organism} with the planted region"
    script:
        "../scripts/measure_recovery.py"
