"""Regions: select the best fraction within each scope, and subtract the region of a utility set.

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


rule select_own:
    input:
        scores="<results>/scores/{backbone}/{method}/{name}.parquet",
        sweep=lambda wc: (
            "<results>/scores/{backbone}/{method}/{name}.sweep.parquet"
            if own_selection(STUDY.methods[wc.method].module, wc.selection)["sweep"]
            else []
        ),
    output:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/raw.safetensors",
    log:
        "<logs>/select_own/{backbone}/{method}/{name}/{selection}.log",
    wildcard_constraints:
        selection=OWN_SELECTIONS,
    conda:
        "../../envs/model.yaml"
    params:
        method=lambda wc: STUDY.methods[wc.method].module,
        allow_empty=STUDY.allow_empty,
        code=lambda wc: script_version(
            "select_own.py",
            method_module(STUDY.methods[wc.method].module, "selection"),
        ),
    message:
        "Selecting {wildcards.selection} of {wildcards.backbone}/{wildcards.method}/{wildcards.name}"
    script:
        "../scripts/select_own.py"


rule refine_region:
    input:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/raw.safetensors",
        utility=lambda wc: removed_region(
            wc.backbone, wc.method, wc.utility, wc.selection
        ),
        like=lambda wc: [
            f"<results>/regions/{wc.backbone}/{wc.method}/{name}/{wc.selection}/minus-{wc.utility}.safetensors"
            for name in grid.unshuffled(STUDY, wc.method, wc.selection, wc.name)
        ],
        scores=lambda wc: [
            f"<results>/scores/{wc.backbone}/{wc.method}/{wc.name}.parquet"
            for _ in grid.unshuffled(STUDY, wc.method, wc.selection, wc.name)
        ],
    output:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/minus-{utility}.safetensors",
    log:
        "<logs>/refine_region/{backbone}/{method}/{name}/{selection}/minus-{utility}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("refine_region.py"),
    message:
        "Subtracting the region of {wildcards.utility} from that of {wildcards.backbone}/{wildcards.method}/{wildcards.name}"
    script:
        "../scripts/refine_region.py"
