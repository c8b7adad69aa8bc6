"""The report: the figures and pages of a study, their labels in the menu, and where readers find more.

report_overlap.smk and report_figures.smk have the rules of the figures, report_pages.smk those of the pages; each
figure and page comes with its table.
"""

from pathlib import Path

from safety_regions.study.facts import data_free_methods, planted_cards, study_facts


report: "../report/workflow.rst"


RESULTS = workflow.pathvars.apply("<results>")
COMBINATIONS = list(dict.fromkeys(cell.rpartition("/")[0] for cell in CELLS))
# Figures of each backbone, method and selection: those of every study, and those that the config asks for.
DRAWN = [
    *["iou", "sizes", "kway", "map", "margins"],
    *(["ladder"] if STUDY.floors or STUDY.ceilings else []),
    *(["convergence"] if POOL_STEPS else []),
    *(["sample_sizes"] if HAS_BLOCKS else []),
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
    *(["<results>/report/behaviour.html"] if BEHAVIOUR_TABLES else []),
    *collect(
        "<results>/report/{combination}/{figure}.svg",
        combination=dict.fromkeys(cell.rpartition("/")[0] for cell in TESTED),
        figure=["behaviour", *(["transfer"] if len(STUDY.identification) > 1 else [])],
    ),
    *collect("<results>/report/{dosed}/dose_response.svg", dosed=DOSED),
    *collect(
        "<results>/report/{cell.backbone}/{cell.method}/{cell.selection}/constraint.svg",
        cell=ablations.constrained_cells(STUDY),
    ),
]
# Files that the summary page lists, path -> contents.
RESULT_FILES = {
    f"{RESULTS}/overlap/iou.parquet": "every IoU, by cell of the grid and combination of sets, for the model and by layer and projection",
    f"{RESULTS}/overlap/region_sizes.parquet": "size of every region by layer and projection",
    f"{RESULTS}/overlap/BACKBONE/METHOD/SELECTION/REFINEMENT.iou.tsv": "square matrix of the pairwise IoUs",
    f"{RESULTS}/report/BACKBONE/METHOD/SELECTION": "figures and their tables",
    f"{RESULTS}/report/verdict.tsv": "the verdicts above, with all their numbers",
    f"{RESULTS}/report/refusals.tsv": "refusal rates, and the number of prompts that each region was found with",
    f"{RESULTS}/regions/BACKBONE/METHOD/NAME/SELECTION": "the regions, as packed bits in safetensors files",
    **(
        {
            f"{RESULTS}/report/behaviour.html": "what regions do when they are changed, beside controls",
            f"{RESULTS}/behaviour": "every effect of a region and of its controls, and every fine-tuned model",
        }
        if BEHAVIOUR_TABLES
        else {}
    ),
    **(
        {f"{RESULTS}/report/recovery.html": "how well methods recover planted regions"}
        if STUDY.planted
        else {}
    ),
}
FAREWELL = f"""
Done. In the folder {RESULTS}:
  report/summary.html     start here: the verdict on every cell, its numbers, and what was studied
  report/                 figures and their tables
  overlap/**/*.iou.tsv    IoU matrices; overlap/iou.parquet has every IoU
To get everything in one page:  snakemake --report report.html
"""


def shown(path, category, title, subcategory=None, caption=None, **labels):
    """Mark a file below report/ for the report, with its labels and the caption of its own name or of ``caption``."""
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
    """Mark a figure of one backbone, method and selection, or its table, for the report."""
    place = {name: f"{{{name}}}" for name in ("backbone", "method", "selection")}
    path = f"{{backbone}}/{{method}}/{{selection}}/{file}"
    return shown(path, "4 Overlap", title, "{backbone}", caption, **place)


METHOD = ("backbone", "method")


def shown_of_behaviour(file, title, of=(*METHOD, "selection")):
    """Mark a figure of what regions do, or its table; ``of``: the wildcards that name those regions."""
    place = {name: f"{{{name}}}" for name in of}
    path, caption = "/".join([*place.values(), file]), Path(file).stem
    return shown(path, "7 Behaviour", title, "{backbone}", f"{caption}_figure", **place)


def has_summary():
    """Whether the summary was among the targets of this run, so that it exists and is up to date."""
    return any(job.rule.name == "write_summary" for job in workflow.dag.jobs)
