"""Recovery: compare what the methods found in an organism with the region that was planted in it, and with the regions
planted in organisms that differ from it only in the place and the training seed.

IN   organisms/{organism}/truth.safetensors of the organism and of its group; regions/... and scores/... of the organism,
     and .sample.parquet of scores that are not all stored
OUT  recovery/{organism}.parquet
"""

from safety_regions.study.plants import group_of


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
