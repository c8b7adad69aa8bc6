"""Overlap: membership counts once, every IoU from them, and the aggregation over the grid.

IN   regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors of all identification sets
OUT  overlap/{backbone}/{method}/{selection}/{refinement}.membership.parquet, .parquet, .iou.tsv;
     overlap/iou.parquet, overlap/region_sizes.parquet
"""


rule count_membership:
    message:
        "Counting membership in {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
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
    script:
        "../scripts/count_membership.py"


rule compute_overlap:
    message:
        "IoU of {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
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
    script:
        "../scripts/compute_overlap.py"


rule gather_overlaps:
    message:
        "Gathering all overlaps"
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
    script:
        "../scripts/gather_overlaps.py"
