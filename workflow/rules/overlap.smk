"""Overlap: membership counts once, every IoU from them, and the aggregation over the grid.

IN   regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors of all identification sets
OUT  overlap/{backbone}/{method}/{selection}/{refinement}.membership.parquet, .parquet, .iou.tsv;
     overlap/iou.parquet, overlap/region_sizes.parquet
"""


rule count_membership:
    input:
        regions=collect(
            "<results>/regions/{{backbone}}/{{method}}/{name}/{{selection}}/{{refinement}}.safetensors",
            name=sorted(STUDY.identification),
        ),
    output:
        membership="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.membership.parquet",
    log:
        "<logs>/count_membership/{backbone}/{method}/{selection}/{refinement}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=sorted(STUDY.identification),
        code=script_version("count_membership.py"),
    message:
        "Counting membership in {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/count_membership.py"


rule compute_overlap:
    input:
        membership="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.membership.parquet",
    output:
        overlap="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.parquet",
        matrix="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.iou.tsv",
    log:
        "<logs>/compute_overlap/{backbone}/{method}/{selection}/{refinement}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("compute_overlap.py"),
    message:
        "IoU of {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/compute_overlap.py"


rule gather_overlaps:
    input:
        overlaps=collect("<results>/overlap/{cell}.parquet", cell=CELLS),
        memberships=collect("<results>/overlap/{cell}.membership.parquet", cell=CELLS),
    output:
        iou="<results>/overlap/iou.parquet",
        sizes="<results>/overlap/region_sizes.parquet",
    log:
        "<logs>/gather_overlaps.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        cells=[cell.split("/") for cell in CELLS],
        code=script_version("gather_overlaps.py"),
    message:
        "Gathering all overlaps"
    script:
        "../scripts/gather_overlaps.py"


rule compare_methods:
    input:
        scores=lambda wc: collect(
            "<results>/scores/{backbone}/{method}/{name}.parquet",
            backbone=wc.backbone,
            method=sorted(STUDY.methods),
            name=wc.name,
        ),
        adapter=lambda wc: (
            adapter_files(wc.backbone)
            if any(map(STUDY.needs_adapter, STUDY.methods))
            else []
        ),
    output:
        overlap="<results>/overlap/{backbone}/methods/{name}.parquet",
        matrix="<results>/overlap/{backbone}/methods/{name}.iou.tsv",
    log:
        "<logs>/compare_methods/{backbone}/{name}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        methods=sorted(STUDY.methods),
        fraction=STUDY.compare_methods,
        family=lambda wc: STUDY.backbones[wc.backbone]["family"],
        code=lambda wc: script_version("compare_methods.py", model_code(wc.backbone)),
    message:
        "Comparing the methods on {wildcards.backbone} and {wildcards.name}"
    script:
        "../scripts/compare_methods.py"
