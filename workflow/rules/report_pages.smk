"""Pages of the report: prompts that sets share, planted regions, and the summary that comes first.

IN   prompts/shared_prompts.parquet, recovery/{organism}.parquet, overlap/iou.parquet, overlap/region_sizes.parquet,
     overlap/{cell}.pools.parquet, overlap/{cell}.sample_sizes.parquet
OUT  report/shared_prompts.html, report/recovery.html, report/summary.html (a tsv beside each; the summary's is verdict.tsv)
"""

FIGURES += [
    "<results>/report/summary.html",
    "<results>/report/shared_prompts.html",
    *(["<results>/report/recovery.html"] if STUDY.planted else []),
]
# Cells with tables of pools, and of blocks of prompts: all or none.
POOLED = CELLS if POOL_STEPS else []
BLOCKED = CELLS if BLOCK_PAIRS else []
RESULTS = workflow.pathvars.apply("<results>")
# Where the summary page sends its readers, path -> what it holds.
RESULT_FILES = {
    f"{RESULTS}/overlap/iou.parquet": "every IoU: cell of the grid, combination of sets, model, layer or projection",
    f"{RESULTS}/overlap/region_sizes.parquet": "size of every region by layer and projection",
    f"{RESULTS}/overlap/BACKBONE/METHOD/SELECTION/REFINEMENT.iou.tsv": "square matrix of the pairwise IoUs",
    f"{RESULTS}/report/BACKBONE/METHOD/SELECTION": "figures, and the table each shows",
    f"{RESULTS}/report/verdict.tsv": "the verdicts above, with all their numbers",
    f"{RESULTS}/report/refusals.tsv": "refusal rates, and the prompts each region was found with",
    f"{RESULTS}/regions/BACKBONE/METHOD/NAME/SELECTION": "the regions: packed bits, safetensors",
    **(
        {f"{RESULTS}/report/recovery.html": "what methods find of planted regions"}
        if STUDY.planted
        else {}
    ),
}
FAREWELL = f"""
Done. In the folder {RESULTS}:
  report/summary.html     start here: a verdict on every cell, its numbers, what was studied
  report/                 figures, and the table each shows
  overlap/**/*.iou.tsv    IoU matrices; overlap/iou.parquet holds every IoU
All in one page:  snakemake --report report.html
"""


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
        tsv=report(
            "<results>/report/shared_prompts.tsv",
            caption="../report/shared_prompts.rst",
            category="2 Prompts",
            labels={"figure": "shared prompts (table)"},
        ),
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


rule write_recovery:
    input:
        recovery=collect(
            "<results>/recovery/{organism}.parquet", organism=STUDY.planted
        ),
    output:
        html=report(
            "<results>/report/recovery.html",
            caption="../report/recovery_page.rst",
            category="6 Recovery",
            labels={"backbone": "all", "figure": "recovery of all plants"},
        ),
        tsv=report(
            "<results>/report/recovery.tsv",
            caption="../report/recovery_page.rst",
            category="6 Recovery",
            labels={"backbone": "all", "figure": "recovery of all plants (table)"},
        ),
    log:
        "<logs>/write_recovery.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        cards=planted_cards(STUDY),
        data_free=data_free_methods(STUDY),
        code=script_version("write_recovery.py"),
    message:
        "Writing what the methods find of planted regions"
    script:
        "../scripts/write_recovery.py"


rule draw_summary:
    input:
        iou="<results>/overlap/iou.parquet",
        sizes="<results>/overlap/region_sizes.parquet",
        pools=collect("<results>/overlap/{cell}.pools.parquet", cell=POOLED),
        blocks=collect("<results>/overlap/{cell}.sample_sizes.parquet", cell=BLOCKED),
        recovery=collect(
            "<results>/recovery/{organism}.parquet", organism=STUDY.planted
        ),
    output:
        html=report(
            "<results>/report/summary.html",
            caption="../report/summary.rst",
            category="1 Summary",
            labels={"figure": "summary"},
        ),
        tsv=report(
            "<results>/report/verdict.tsv",
            caption="../report/summary.rst",
            category="1 Summary",
            labels={"figure": "summary (table)"},
        ),
    log:
        "<logs>/draw_summary.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=sorted(STUDY.identification),
        pooled=POOLED,
        blocked=BLOCKED,
        planted=STUDY.planted,
        facts=study_facts(STUDY),
        files=RESULT_FILES,
        code=script_version("draw_summary.py"),
    message:
        "Writing the summary"
    script:
        "../scripts/draw_summary.py"
