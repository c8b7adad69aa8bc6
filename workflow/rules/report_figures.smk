"""Figures of the report, each with the table it shows.

IN   overlap/... (.parquet, .membership.parquet, .pools.parquet, .sample_sizes.parquet), overlap/{backbone}/methods/...,
     responses/..., scores/..., recovery/{organism}.parquet
OUT  report/{backbone}/{method}/{selection}/{iou,kway,sizes,map,margins}.svg, and, where the config asks for what they show,
     {ladder,convergence,sample_sizes}.svg; report/{backbone}/methods.svg, report/{organism}/recovery.svg,
     report/refusals.svg (a tsv beside each)
"""

from safety_regions.study.facts import data_free_methods, planted_cards, study_facts

COMBINATIONS = list(dict.fromkeys(cell.rpartition("/")[0] for cell in CELLS))
# Figures of each backbone, method and selection: what every study has, and what a config asks for.
DRAWN = [
    *["iou", "sizes", "kway", "map", "margins"],
    *(["ladder"] if STUDY.floors or STUDY.ceilings else []),
    *(["convergence"] if POOL_STEPS else []),
    *(["sample_sizes"] if BLOCK_PAIRS else []),
]
FIGURES = [
    "<results>/report/refusals.svg",
    *collect("<results>/report/{organism}/recovery.svg", organism=STUDY.planted),
    *collect(
        "<results>/report/{combination}/{figure}.svg",
        combination=COMBINATIONS,
        figure=DRAWN,
    ),
]
# Sets that the overlaps need scores of; a utility set that no refinement subtracts is not scored for a figure.
SCORED = [*STUDY.identification, *filter(None, map(grid.subtracted, STUDY.refinements))]
if STUDY.compare_methods:
    FIGURES += collect(
        "<results>/report/{backbone}/methods.svg", backbone=STUDY.backbones
    )
# The tables behind the figures of draw_overlap: file, caption, title.
TABLES = [
    ("iou", "iou", "pairwise IoU"),
    ("tree", "iou", "order of the sets"),
    ("kway", "kway", "IoU of k sets"),
    ("sizes", "sizes", "region sizes"),
    ("map", "map", "IoU by address"),
    ("margins", "margins", "IoU by layer and projection"),
]
PLACE = {name: f"{{{name}}}" for name in ("backbone", "method", "selection")}


report: "../report/workflow.rst"


rule draw_overlap:
    input:
        overlaps=cell_tables("parquet"),
        memberships=cell_tables("membership.parquet"),
    output:
        iou=report(
            "<results>/report/{backbone}/{method}/{selection}/iou.svg",
            caption="../report/iou.rst",
            category="4 Overlap",
            subcategory="{backbone}",
            labels={**PLACE, "figure": "pairwise IoU"},
        ),
        kway=report(
            "<results>/report/{backbone}/{method}/{selection}/kway.svg",
            caption="../report/kway.rst",
            category="4 Overlap",
            subcategory="{backbone}",
            labels={**PLACE, "figure": "IoU of k sets"},
        ),
        sizes=report(
            "<results>/report/{backbone}/{method}/{selection}/sizes.svg",
            caption="../report/sizes.rst",
            category="4 Overlap",
            subcategory="{backbone}",
            labels={**PLACE, "figure": "region sizes"},
        ),
        map=report(
            "<results>/report/{backbone}/{method}/{selection}/map.svg",
            caption="../report/map.rst",
            category="4 Overlap",
            subcategory="{backbone}",
            labels={**PLACE, "figure": "IoU by address"},
        ),
        margins=report(
            "<results>/report/{backbone}/{method}/{selection}/margins.svg",
            caption="../report/margins.rst",
            category="4 Overlap",
            subcategory="{backbone}",
            labels={**PLACE, "figure": "IoU by layer and projection"},
        ),
        tables=[
            report(
                f"<results>/report/{{backbone}}/{{method}}/{{selection}}/{table}.tsv",
                caption=f"../report/{caption}.rst",
                category="4 Overlap",
                subcategory="{backbone}",
                labels={**PLACE, "figure": f"{title} (table)"},
            )
            for table, caption, title in TABLES
        ],
    log:
        "<logs>/draw_overlap/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=sorted(STUDY.identification),
        refinements=refinements_of,
        code=script_version("draw_overlap.py"),
    message:
        "Drawing overlaps of {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_overlap.py"


rule draw_ladder:
    input:
        tables=cell_tables("parquet"),
    output:
        svg=report(
            "<results>/report/{backbone}/{method}/{selection}/ladder.svg",
            caption="../report/ladder.rst",
            category="4 Overlap",
            subcategory="{backbone}",
            labels={**PLACE, "figure": "chance to ceiling"},
        ),
        tsv=report(
            "<results>/report/{backbone}/{method}/{selection}/ladder.tsv",
            caption="../report/ladder.rst",
            category="4 Overlap",
            subcategory="{backbone}",
            labels={**PLACE, "figure": "chance to ceiling (table)"},
        ),
    log:
        "<logs>/draw_ladder/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        refinements=refinements_of,
        code=script_version("draw_ladder.py"),
    message:
        "Drawing floors and ceilings of {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_ladder.py"


rule draw_convergence:
    input:
        tables=cell_tables("pools.parquet"),
    output:
        svg=report(
            "<results>/report/{backbone}/{method}/{selection}/convergence.svg",
            caption="../report/convergence.rst",
            category="4 Overlap",
            subcategory="{backbone}",
            labels={**PLACE, "figure": "pools of sets"},
        ),
        tsv=report(
            "<results>/report/{backbone}/{method}/{selection}/convergence.tsv",
            caption="../report/convergence.rst",
            category="4 Overlap",
            subcategory="{backbone}",
            labels={**PLACE, "figure": "pools of sets (table)"},
        ),
    log:
        "<logs>/draw_convergence/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        refinements=refinements_of,
        code=script_version("draw_convergence.py"),
    message:
        "Drawing growing pools of {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_convergence.py"


rule draw_sample_sizes:
    input:
        tables=cell_tables("sample_sizes.parquet"),
    output:
        svg=report(
            "<results>/report/{backbone}/{method}/{selection}/sample_sizes.svg",
            caption="../report/sample_sizes.rst",
            category="4 Overlap",
            subcategory="{backbone}",
            labels={**PLACE, "figure": "sample sizes"},
        ),
        tsv=report(
            "<results>/report/{backbone}/{method}/{selection}/sample_sizes.tsv",
            caption="../report/sample_sizes.rst",
            category="4 Overlap",
            subcategory="{backbone}",
            labels={**PLACE, "figure": "sample sizes (table)"},
        ),
    log:
        "<logs>/draw_sample_sizes/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        refinements=refinements_of,
        code=script_version("draw_sample_sizes.py"),
    message:
        "Drawing sample sizes of {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_sample_sizes.py"


rule draw_methods:
    input:
        overlaps=collect(
            "<results>/overlap/{{backbone}}/methods/{name}.parquet",
            name=sorted(STUDY.identification),
        ),
    output:
        svg=report(
            "<results>/report/{backbone}/methods.svg",
            caption="../report/methods.rst",
            category="5 Methods",
            labels={"backbone": "{backbone}", "figure": "agreement of methods"},
        ),
        tsv=report(
            "<results>/report/{backbone}/methods.tsv",
            caption="../report/methods.rst",
            category="5 Methods",
            labels={
                "backbone": "{backbone}",
                "figure": "agreement of methods (table)",
            },
        ),
    log:
        "<logs>/draw_methods/{backbone}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        methods=sorted(STUDY.methods),
        names=sorted(STUDY.identification),
        fraction=STUDY.compare_methods,
        code=script_version("draw_methods.py"),
    message:
        "Drawing how much the methods agree on {wildcards.backbone}"
    script:
        "../scripts/draw_methods.py"


rule draw_recovery:
    input:
        recovery="<results>/recovery/{organism}.parquet",
    output:
        svg=report(
            "<results>/report/{organism}/recovery.svg",
            caption="../report/recovery.rst",
            category="6 Recovery",
            labels={"backbone": "{organism}", "figure": "recovery of the plant"},
        ),
        tsv=report(
            "<results>/report/{organism}/recovery.tsv",
            caption="../report/recovery.rst",
            category="6 Recovery",
            labels={
                "backbone": "{organism}",
                "figure": "recovery of the plant (table)",
            },
        ),
    log:
        "<logs>/draw_recovery/{organism}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        data_free=data_free_methods(STUDY),
        code=script_version("draw_recovery.py"),
    message:
        "Drawing what the methods find of the region planted in {wildcards.organism}"
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
        svg=report(
            "<results>/report/refusals.svg",
            caption="../report/refusals.rst",
            category="3 Refusals",
            labels={"figure": "refusal rates"},
        ),
        tsv=report(
            "<results>/report/refusals.tsv",
            caption="../report/refusals.rst",
            category="3 Refusals",
            labels={"figure": "refusal rates (table)"},
        ),
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
