"""Figures of whole backbones, each with its table: ladder of all cells, agreement of methods, recovery, refusals.

IN   report/verdict.tsv, overlap/{backbone}/methods/..., recovery/{organism}.parquet, responses/..., scores/...
OUT  report/{backbone}/{ladder,methods}.svg, report/{organism}/recovery.svg, report/refusals.svg (each with a tsv)
"""

# Sets that the overlaps need scores of. A utility set that no refinement subtracts is not scored only for this figure.
SCORED = [*STUDY.identification, *filter(None, map(grid.subtracted, STUDY.refinements))]


rule draw_ladders:
    input:
        verdict="<results>/report/verdict.tsv",
    output:
        svg=shown(
            "{backbone}/ladder.svg",
            "4 Overlap",
            "all cells, chance to ceiling",
            "{backbone}",
            caption="ladders",
            backbone="{backbone}",
        ),
        tsv=shown(
            "{backbone}/ladder.tsv",
            "4 Overlap",
            "all cells, chance to ceiling",
            "{backbone}",
            caption="ladders",
            backbone="{backbone}",
        ),
    log:
        "<logs>/draw_ladders/{backbone}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        methods=list(STUDY.methods),
        data_free=data_free_methods(STUDY),
        code=script_version("draw_ladders.py"),
    message:
        "Drawing all cells of {wildcards.backbone} between chance and ceiling"
    script:
        "../scripts/draw_ladders.py"


rule draw_methods:
    input:
        overlaps=collect(
            "<results>/overlap/{{backbone}}/methods/{name}.parquet",
            name=sorted(STUDY.identification),
        ),
    output:
        svg=shown(
            "{backbone}/methods.svg",
            "5 Methods",
            "agreement of methods",
            backbone="{backbone}",
        ),
        tsv=shown(
            "{backbone}/methods.tsv",
            "5 Methods",
            "agreement of methods",
            backbone="{backbone}",
        ),
    log:
        "<logs>/draw_methods/{backbone}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        methods=COMPARED_METHODS,
        fraction=STUDY.compare_methods,
        code=script_version("draw_methods.py"),
    message:
        "Drawing the agreement of the methods on {wildcards.backbone}"
    script:
        "../scripts/draw_methods.py"


rule draw_recovery:
    input:
        recovery="<results>/recovery/{organism}.parquet",
    output:
        svg=shown(
            "{organism}/recovery.svg",
            "6 Recovery",
            "recovery of the planted region",
            backbone="{organism}",
        ),
        tsv=shown(
            "{organism}/recovery.tsv",
            "6 Recovery",
            "recovery of the planted region",
            backbone="{organism}",
        ),
    log:
        "<logs>/draw_recovery/{organism}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        data_free=data_free_methods(STUDY),
        code=script_version("draw_recovery.py"),
    message:
        "Drawing how well the methods recover the region planted in {wildcards.organism}"
    script:
        "../scripts/draw_recovery.py"


rule draw_refusals:
    input:
        responses=collect(
            "<results>/responses/{backbone}/{dataset}.parquet",
            backbone=STUDY.backbones,
            dataset=grid.studied_datasets(STUDY),
        ),
        scores=collect(
            "<results>/scores/{backbone}/{method}/{dataset}.parquet",
            backbone=STUDY.backbones,
            method=STUDY.methods,
            dataset=SCORED,
        ),
    output:
        svg=shown("refusals.svg", "3 Refusals", "refusal rates"),
        tsv=shown("refusals.tsv", "3 Refusals", "refusal rates"),
    log:
        "<logs>/draw_refusals.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        roles={
            **dict.fromkeys(STUDY.identification, "identification"),
            **dict.fromkeys(STUDY.utility, "utility"),
        },
        code=script_version("draw_refusals.py"),
    message:
        "Drawing refusal rates"
    script:
        "../scripts/draw_refusals.py"
