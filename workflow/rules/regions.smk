"""Regions: the best-scored fraction within each scope, and what is left of it without a utility region.

IN   scores/{backbone}/{method}/{name}.parquet
OUT  regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors
"""


rule select_region:
    input:
        scores="<results>/scores/{backbone}/{method}/{name}.parquet",
    output:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/raw.safetensors",
    log:
        "<logs>/select_region/{backbone}/{method}/{name}/{selection}.log",
    wildcard_constraints:
        selection=RANKED,
    conda:
        "../../envs/analysis.yaml"
    params:
        allow_empty=STUDY.allow_empty,
        code=script_version("select_region.py"),
    message:
        "Selecting {wildcards.selection} of {wildcards.backbone}/{wildcards.method}/{wildcards.name}"
    script:
        "../scripts/select_region.py"


rule select_agreed:
    input:
        scores="<results>/scores/{backbone}/{method}/{name}.parquet",
    output:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/raw.safetensors",
    log:
        "<logs>/select_agreed/{backbone}/{method}/{name}/{selection}.log",
    wildcard_constraints:
        selection=AGREED,
    conda:
        "../../envs/analysis.yaml"
    params:
        allow_empty=STUDY.allow_empty,
        code=script_version("select_agreed.py"),
    message:
        "Selecting {wildcards.selection} of {wildcards.backbone}/{wildcards.method}/{wildcards.name}"
    script:
        "../scripts/select_agreed.py"


rule refine_region:
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
    message:
        "Refining {wildcards.backbone}/{wildcards.method}/{wildcards.name} minus {wildcards.utility}"
    script:
        "../scripts/refine_region.py"
