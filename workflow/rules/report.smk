"""Report: figures with the tables they show, and the pages of `snakemake --report report.html`.

IN   overlap/..., overlap/iou.parquet, overlap/region_sizes.parquet, responses/..., scores/...,
     prompts/shared_prompts.parquet, overlap/{backbone}/methods/...
OUT  report/{backbone}/{method}/{selection}/{iou,sizes,kway}.svg, report/{backbone}/methods.svg,
     report/refusals.svg (a tsv beside each),
     report/shared_prompts.html, report/summary.html
"""

from safety_regions.report.facts import study_facts

COMBINATIONS = list(dict.fromkeys(cell.rpartition("/")[0] for cell in CELLS))
RESULTS = workflow.pathvars.apply("<results>")
FIGURES = [
    "<results>/report/summary.html",
    "<results>/report/shared_prompts.html",
    "<results>/report/refusals.svg",
    *collect(
        "<results>/report/{combination}/{figure}.svg",
        combination=COMBINATIONS,
        figure=["iou", "sizes", "kway"],
    ),
]
# Sets that the overlaps need scores of; a utility set that no refinement subtracts is not scored for a figure.
SCORED = [*STUDY.identification, *filter(None, map(grid.subtracted, STUDY.refinements))]
if STUDY.compare_methods:
    FIGURES += collect(
        "<results>/report/{backbone}/methods.svg", backbone=STUDY.backbones
    )
PLACE = {name: f"{{{name}}}" for name in ("backbone", "method", "selection")}
# Where the summary page sends its readers, path -> what it holds.
RESULT_FILES = {
    f"{RESULTS}/overlap/iou.parquet": "every IoU: cell of the grid, combination of sets, model, layer or projection",
    f"{RESULTS}/overlap/region_sizes.parquet": "size of every region by layer and projection",
    f"{RESULTS}/overlap/BACKBONE/METHOD/SELECTION/REFINEMENT.iou.tsv": "square matrix of the pairwise IoUs",
    f"{RESULTS}/report/BACKBONE/METHOD/SELECTION": "figures, and the table each shows",
    f"{RESULTS}/report/refusals.tsv": "refusal rates, and the prompts each region was found with",
    f"{RESULTS}/regions/BACKBONE/METHOD/NAME/SELECTION": "the regions: packed bits, safetensors",
}
FAREWELL = f"""
Done. In the folder {RESULTS}:
  report/summary.html     start here: what was studied, region sizes, IoU beside chance
  report/                 figures, and the table each shows
  overlap/**/*.iou.tsv    IoU matrices; overlap/iou.parquet holds every IoU
All in one page:  snakemake --report report.html
"""


report: "../report/workflow.rst"


rule draw_overlap:
    input:
        overlaps=collect(
            "<results>/overlap/{{backbone}}/{{method}}/{{selection}}/{refinement}.parquet",
            refinement=STUDY.refinements,
        ),
        memberships=collect(
            "<results>/overlap/{{backbone}}/{{method}}/{{selection}}/{refinement}.membership.parquet",
            refinement=STUDY.refinements,
        ),
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
        iou_tsv="<results>/report/{backbone}/{method}/{selection}/iou.tsv",
        kway_tsv="<results>/report/{backbone}/{method}/{selection}/kway.tsv",
        sizes_tsv="<results>/report/{backbone}/{method}/{selection}/sizes.tsv",
    log:
        "<logs>/draw_overlap/{backbone}/{method}/{selection}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=sorted(STUDY.identification),
        refinements=list(STUDY.refinements),
        code=script_version("draw_overlap.py"),
    message:
        "Drawing overlaps of {wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    script:
        "../scripts/draw_overlap.py"


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
        tsv="<results>/report/{backbone}/methods.tsv",
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
        tsv="<results>/report/refusals.tsv",
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


rule draw_shared_prompts:
    input:
        shared="<results>/prompts/shared_prompts.parquet",
    output:
        html=report(
            "<results>/report/shared_prompts.html",
            caption="../report/shared_prompts.rst",
            category="2 Prompts",
            labels={"figure": "shared prompts"},
        ),
        tsv="<results>/report/shared_prompts.tsv",
    log:
        "<logs>/draw_shared_prompts.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("draw_shared_prompts.py"),
    message:
        "Listing shared prompts"
    script:
        "../scripts/draw_shared_prompts.py"


rule draw_summary:
    input:
        iou="<results>/overlap/iou.parquet",
        sizes="<results>/overlap/region_sizes.parquet",
    output:
        html=report(
            "<results>/report/summary.html",
            caption="../report/summary.rst",
            category="1 Summary",
            labels={"figure": "summary"},
        ),
        tsv="<results>/report/summary.tsv",
    log:
        "<logs>/draw_summary.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=sorted(STUDY.identification),
        facts=study_facts(STUDY),
        files=RESULT_FILES,
        code=script_version("draw_summary.py"),
    message:
        "Writing the summary"
    script:
        "../scripts/draw_summary.py"
