"""Regions: the best-scored fraction within each scope, and what is left of it without a utility region.

IN   scores/{backbone}/{method}/{name}.parquet
OUT  regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors
"""


rule select_region:
    message:
        "Selecting {wildcards.selection} of {wildcards.backbone}/{wildcards.method}/{wildcards.name}"
    input:
        scores="<results>/scores/{backbone}/{method}/{name}.parquet",
    output:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/raw.safetensors",
    log:
        "<logs>/select_region/{backbone}/{method}/{name}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        allow_empty=STUDY.allow_empty,
        code=script_version("select_region.py"),
    script:
        "../scripts/select_region.py"


rule refine_region:
    message:
        "Refining {wildcards.backbone}/{wildcards.method}/{wildcards.name} minus {wildcards.utility}"
    input:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/raw.safetensors",
        utility="<results>/regions/{backbone}/{method}/{utility}/{selection}/raw.safetensors",
    output:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/minus-{utility}.safetensors",
    log:
        "<logs>/refine_region/{backbone}/{method}/{name}/{selection}/minus-{utility}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("refine_region.py"),
    script:
        "../scripts/refine_region.py"
