"""Figures of one backbone, method and selection, each with its table: overlaps, and what regions do.

IN   overlap/{backbone}/{method}/{selection}/... (.parquet, .membership.parquet or .subspaces.parquet, .pools.parquet,
     .cores.parquet, .sample_sizes.parquet)
OUT  report/{backbone}/{method}/{selection}/{iou,kway,sizes,map,margins}.svg, and, if the config asks for
     their data, {ladder,convergence,cores,sample_sizes}.svg (a tsv beside each, and tree.tsv)
"""


rule draw_overlap:
    input:
        overlaps=cell_tables("parquet"),
        memberships=lambda wc: [
            counted_table(refinement=refinement, **wc)
            for refinement in refinements_of(wc)
        ],
    output:
        iou=shown_of_overlap("iou.svg", "pairwise IoU"),
        iou_table=shown_of_overlap("iou.tsv", "pairwise IoU"),
        tree_table=shown_of_overlap("tree.tsv", "order of the sets", caption="iou"),
        kway=shown_of_overlap("kway.svg", "IoU of k sets"),
        kway_table=shown_of_overlap("kway.tsv", "IoU of k sets"),
        sizes=shown_of_overlap("sizes.svg", "region sizes"),
        sizes_table=shown_of_overlap("sizes.tsv", "region sizes"),
        map=shown_of_overlap("map.svg", "map of IoU"),
        map_table=shown_of_overlap("map.tsv", "map of IoU"),
        margins=shown_of_overlap("margins.svg", "IoU by layer and projection"),
        margins_table=shown_of_overlap("margins.tsv", "IoU by layer and projection"),
    log:
        "<logs>/draw_overlap/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=sorted(STUDY.identification),
        refinements=refinements_of,
        code=script_version("draw_overlap.py"),
    message:
        "Drawing the overlaps of {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_overlap.py"


rule draw_ladder:
    input:
        tables=cell_tables("parquet"),
    output:
        svg=shown_of_overlap("ladder.svg", "chance to ceiling"),
        tsv=shown_of_overlap("ladder.tsv", "chance to ceiling"),
    log:
        "<logs>/draw_ladder/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        refinements=refinements_of,
        code=script_version("draw_ladder.py"),
    message:
        "Drawing the floors and ceilings of {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_ladder.py"


rule draw_convergence:
    input:
        tables=cell_tables("pools.parquet"),
    output:
        svg=shown_of_overlap("convergence.svg", "pools of sets"),
        tsv=shown_of_overlap("convergence.tsv", "pools of sets"),
    log:
        "<logs>/draw_convergence/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        refinements=refinements_of,
        code=script_version("draw_convergence.py"),
    message:
        "Drawing the growing pools of sets: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_convergence.py"


rule draw_cores:
    input:
        tables=cell_tables("cores.parquet"),
    output:
        svg=shown_of_overlap("cores.svg", "cores of k sets"),
        tsv=shown_of_overlap("cores.tsv", "cores of k sets"),
    log:
        "<logs>/draw_cores/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        refinements=refinements_of,
        code=script_version("draw_cores.py"),
    message:
        "Drawing what k sets have in common: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_cores.py"


rule draw_sample_sizes:
    input:
        tables=cell_tables("sample_sizes.parquet"),
    output:
        svg=shown_of_overlap("sample_sizes.svg", "sample sizes"),
        tsv=shown_of_overlap("sample_sizes.tsv", "sample sizes"),
    log:
        "<logs>/draw_sample_sizes/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        refinements=refinements_of,
        code=script_version("draw_sample_sizes.py"),
    message:
        "Drawing IoU against sample size: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_sample_sizes.py"


rule draw_behaviour:
    input:
        effects=lambda wc: behaviour_of_cells(wc, "effects"),
    output:
        svg=shown_of_behaviour("behaviour.svg", "what regions do"),
        tsv=shown_of_behaviour("behaviour.tsv", "what regions do"),
    log:
        "<logs>/draw_behaviour/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("draw_behaviour.py"),
    message:
        "Drawing what regions do: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_behaviour.py"


rule draw_dose_response:
    input:
        effects=lambda wc: dosed_tables(wc, "effects"),
        ablation=lambda wc: dosed_tables(wc, "ablation"),
    output:
        svg=shown_of_behaviour("dose_response.svg", "dose and response", METHOD),
        tsv=shown_of_behaviour("dose_response.tsv", "dose and response", METHOD),
    log:
        "<logs>/draw_dose_response/{backbone}/{method}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("draw_dose_response.py"),
    message:
        "Drawing what smaller and larger regions do: {wildcards.backbone}/{wildcards.method}"
    script:
        "../scripts/draw_dose_response.py"


rule draw_transfer:
    input:
        pairs=lambda wc: behaviour_of_cells(wc, "transfer_pairs"),
        transfer=lambda wc: behaviour_of_cells(wc, "transfer"),
    output:
        svg=shown_of_behaviour("transfer.svg", "overlap and transfer"),
        tsv=shown_of_behaviour("transfer.tsv", "overlap and transfer"),
    log:
        "<logs>/draw_transfer/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("draw_transfer.py"),
    message:
        "Drawing overlap and transfer: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_transfer.py"


rule draw_constraint:
    input:
        arms=lambda wc: [
            path
            for path in CONSTRAINED
            if path.startswith(f"<results>/behaviour/{wc.backbone}/{wc.method}/")
            and f"/{wc.selection}/" in path
        ],
    output:
        svg=shown_of_behaviour("constraint.svg", "what constraints keep"),
        tsv=shown_of_behaviour("constraint.tsv", "what constraints keep"),
    log:
        "<logs>/draw_constraint/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("draw_constraint.py"),
    message:
        "Drawing refusals along fine-tuning: {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_constraint.py"
