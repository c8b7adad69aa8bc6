"""The report: which figures and pages a study has, how they are labelled in its menu, where readers are sent. No rules.

Figures stand in report_overlap.smk and report_figures.smk, pages in report_pages.smk; each has its table beside it.
"""

from pathlib import Path

from safety_regions.study.facts import data_free_methods, planted_cards, study_facts


report: "../report/workflow.rst"


RESULTS = workflow.pathvars.apply("<results>")
COMBINATIONS = list(dict.fromkeys(cell.rpartition("/")[0] for cell in CELLS))
# Figures of each backbone, method and selection: what every study has, and what a config asks for.
DRAWN = [
    *["iou", "sizes", "kway", "map", "margins"],
    *(["ladder"] if STUDY.floors or STUDY.ceilings else []),
    *(["convergence"] if POOL_STEPS else []),
    *(["sample_sizes"] if BLOCK_PAIRS else []),
]
REPORT = [
    "<results>/report/summary.html",
    "<results>/report/shared_prompts.html",
    "<results>/report/refusals.svg",
    *(["<results>/report/recovery.html"] if STUDY.planted else []),
    *collect("<results>/report/{organism}/recovery.svg", organism=STUDY.planted),
    *collect(
        "<results>/report/{backbone}/methods.svg",
        backbone=STUDY.backbones if STUDY.compare_methods else [],
    ),
    *collect(
        "<results>/report/{combination}/{figure}.svg",
        combination=COMBINATIONS,
        figure=DRAWN,
    ),
]
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


def shown(path, category, title, subcategory=None, caption=None, **labels):
    """A file of the report, at a path below report/, under its labels; its caption is that of its name or another's."""
    file = Path(path)
    kind = " (table)" if file.suffix == ".tsv" else ""
    return report(
        f"<results>/report/{path}",
        caption=f"../report/{caption or file.stem}.rst",
        category=category,
        subcategory=subcategory,
        labels={**labels, "figure": f"{title}{kind}"},
    )


def shown_of_overlap(file, title, caption=None):
    """A figure, or its table, of one backbone, method and selection."""
    place = {name: f"{{{name}}}" for name in ("backbone", "method", "selection")}
    path = f"{{backbone}}/{{method}}/{{selection}}/{file}"
    return shown(path, "4 Overlap", title, "{backbone}", caption, **place)


def has_summary():
    """Whether a run that succeeded was asked for the summary, so that it is there and up to date."""
    return any(job.rule.name == "write_summary" for job in workflow.dag.jobs)
