"""Overlap: count membership, compute every IoU and its references (chance, floor, ceiling), aggregate over the grid.

IN   regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors of all identification sets; of utility
     sets, pools, regrouped sets and blocks of prompts if the config asks for them; frames with shuffles and halves;
     with halves, also scores/{backbone}/{method}/{dataset}.frame; prompts/shared_prompts.parquet
OUT  overlap/{backbone}/{method}/{selection}/{refinement}.membership.parquet (of ranks .subspaces.parquet), .parquet, .iou.tsv,
     .pools.parquet, .cores.parquet, .sample_sizes.parquet, .crossed.parquet; overlap/iou.parquet, overlap/region_sizes.parquet
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
        "Counting units by region membership: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/count_membership.py"


rule measure_subspaces:
    input:
        regions=collect(
            "<results>/regions/{{backbone}}/{{method}}/{name}/{{selection}}/{{refinement}}.safetensors",
            name=sorted(STUDY.identification),
        ),
    output:
        shared="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.subspaces.parquet",
        spectrum="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.spectrum.parquet",
    log:
        "<logs>/measure_subspaces/{backbone}/{method}/{selection}/{refinement}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=sorted(STUDY.identification),
        code=script_version("measure_subspaces.py"),
    message:
        "Measuring shared dimensions: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/measure_subspaces.py"


rule compute_overlap:
    input:
        membership=lambda wc: counted_table(**wc),
        regions=lambda wc: regions_of(
            wc, grid.framed_names(STUDY, wc.method, wc.selection, wc.refinement)
        ),
        labels=lambda wc: collect(
            "<results>/overlap/{backbone}/{method}/labels/{pool}.parquet",
            backbone=wc.backbone,
            method=wc.method,
            pool=comparisons.permuted_pools(STUDY, wc.method, wc.selection),
        ),
        samples=lambda wc: scores_of(
            wc, grid.correlated_names(STUDY, wc.method, wc.selection, wc.refinement)
        ),
        removed=lambda wc: [
            removed_region(wc.backbone, wc.method, name, wc.selection)
            for name in grid.uncorrelated_regions(
                STUDY, wc.method, wc.selection, wc.refinement
            )
        ],
        shared="<results>/prompts/shared_prompts.parquet",
    output:
        overlap="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.parquet",
        matrix="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.iou.tsv",
    log:
        "<logs>/compute_overlap/{backbone}/{method}/{selection}/{refinement}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=lambda wc: grid.framed_names(
            STUDY, wc.method, wc.selection, wc.refinement
        ),
        frame=lambda wc: grid.framing(STUDY, wc.method, wc.selection, wc.refinement),
        correlated=lambda wc: grid.correlated_names(
            STUDY, wc.method, wc.selection, wc.refinement
        ),
        pools=lambda wc: comparisons.permuted_pools(STUDY, wc.method, wc.selection),
        code=script_version("compute_overlap.py"),
    message:
        "Computing the IoUs of {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/compute_overlap.py"


rule compare_pools:
    input:
        regions=lambda wc: regions_of(
            wc, comparisons.pool_names(STUDY, wc.method, wc.selection)
        ),
    output:
        pairs="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.pools.parquet",
    log:
        "<logs>/compare_pools/{backbone}/{method}/{selection}/{refinement}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=lambda wc: comparisons.pool_names(STUDY, wc.method, wc.selection),
        steps=[step._asdict() for step in POOL_STEPS],
        shuffled=lambda wc: comparisons.shuffled_steps(STUDY, wc.method, wc.selection),
        nested=lambda wc: comparisons.is_nested(STUDY, wc.method, wc.selection),
        code=script_version("compare_pools.py"),
    message:
        "Comparing pools of sets: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/compare_pools.py"


rule compare_cores:
    input:
        regions=lambda wc: regions_of(
            wc, comparisons.core_names(STUDY, wc.method, wc.selection)
        ),
    output:
        cores="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.cores.parquet",
    log:
        "<logs>/compare_cores/{backbone}/{method}/{selection}/{refinement}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=lambda wc: comparisons.core_names(STUDY, wc.method, wc.selection),
        groups=lambda wc: [
            group._asdict()
            for group in comparisons.core_groups(STUDY, wc.method, wc.selection)
        ],
        code=script_version("compare_cores.py"),
    message:
        "Comparing what more and more sets have in common: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/compare_cores.py"


rule compare_sample_sizes:
    input:
        regions=lambda wc: regions_of(wc, comparisons.paired_names(block_pairs(wc))),
    output:
        pairs="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.sample_sizes.parquet",
    log:
        "<logs>/compare_sample_sizes/{backbone}/{method}/{selection}/{refinement}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=lambda wc: comparisons.paired_names(block_pairs(wc)),
        pairs=lambda wc: [blocks._asdict() for blocks in block_pairs(wc)],
        table="SAMPLE_SIZES",
        code=script_version("compare_pairs.py"),
    message:
        "Comparing sample sizes: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"
    script:
        "../scripts/compare_pairs.py"


use rule compare_sample_sizes as compare_crossed with:
    input:
        regions=lambda wc: regions_of(wc, comparisons.paired_names(CROSSED_PAIRS)),
    output:
        pairs="<results>/overlap/{backbone}/{method}/{selection}/{refinement}.crossed.parquet",
    log:
        "<logs>/compare_crossed/{backbone}/{method}/{selection}/{refinement}.log",
    params:
        names=comparisons.paired_names(CROSSED_PAIRS),
        pairs=[pair._asdict() for pair in CROSSED_PAIRS],
        table="CROSSED",
        code=script_version("compare_pairs.py"),
    message:
        "Comparing crossed responses: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}/{wildcards.refinement}"


rule gather_overlaps:
    input:
        overlaps=collect("<results>/overlap/{cell}.parquet", cell=CELLS),
        memberships=[counted_table(*cell.split("/")) for cell in CELLS],
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
        "Collecting all overlaps in one table"
    script:
        "../scripts/gather_overlaps.py"


rule compare_methods:
    input:
        scores=lambda wc: collect(
            "<results>/scores/{backbone}/{method}/{name}.parquet",
            backbone=wc.backbone,
            method=COMPARED_METHODS,
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
    resources:
        mem_mb=lambda wc, attempt: regions_mb(
            STUDY.backbones[wc.backbone], len(COMPARED_METHODS), attempt
        ),
    params:
        methods=COMPARED_METHODS,
        fraction=STUDY.compare_methods,
        family=lambda wc: STUDY.backbones[wc.backbone]["family"],
        code=lambda wc: script_version("compare_methods.py", model_code(wc.backbone)),
    message:
        "Comparing the methods on {wildcards.backbone} and {wildcards.name}"
    script:
        "../scripts/compare_methods.py"
