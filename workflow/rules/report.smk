"""The report: the figures and pages of a study, their labels in the menu, and where readers find more.

report_overlap.smk and report_figures.smk have the rules of the figures, report_pages.smk those of the pages; each
figure and page comes with its table. The first page, report/index.html, is written last and holds or links the rest.
"""

from pathlib import Path

import yaml

from safety_regions.study.config import COMPARED_TABLES
from safety_regions.study.facts import (
    backbone_facts,
    base_reading_methods,
    data_free_methods,
    method_facts,
    planted_cards,
    study_facts,
)
from safety_regions.study.file_stamps import stamp


report: "../report/workflow.rst"


RESULTS = workflow.pathvars.apply("<results>")
COMBINATIONS = list(dict.fromkeys(cell.rpartition("/")[0] for cell in CELLS))
# Figures of each backbone, method and selection: those of every study, and those that the config asks for.
DRAWN = [
    *["iou", "sizes", "kway", "map", "margins"],
    *(["ladder"] if STUDY.floors or STUDY.ceilings else []),
    *(["convergence"] if POOL_STEPS else []),
    *(["cores"] if STUDY.regroupings else []),
    *(["sample_sizes"] if HAS_BLOCKS else []),
]
PARTS = [
    "<results>/report/verdict.tsv",
    "<results>/report/shared_prompts.html",
    "<results>/report/refusals.svg",
    *collect("<results>/report/{backbone}/ladder.svg", backbone=STUDY.backbones),
    *(["<results>/report/recovery.html"] if RECOVERED else []),
    *collect("<results>/report/{organism}/recovery.svg", organism=RECOVERED),
    *collect(
        "<results>/report/{backbone}/methods.svg",
        backbone=STUDY.backbones if COMPARED_METHODS else [],
    ),
    *collect(
        "<results>/report/{combination}/{figure}.svg",
        combination=COMBINATIONS,
        figure=DRAWN,
    ),
    *(["<results>/report/behaviour.html"] if BEHAVIOUR_TABLES else []),
    *collect("<results>/report/compared/{study}.html", study=STUDY.compare_with),
    *collect(
        "<results>/report/{combination}/{figure}.svg",
        combination=dict.fromkeys(cell.rpartition("/")[0] for cell in TESTED),
        figure=["behaviour", *(["transfer"] if len(STUDY.identification) > 1 else [])],
    ),
    *collect("<results>/report/{dosed}/dose_response.svg", dosed=DOSED),
    *collect(
        "<results>/report/{combination}/constraint.svg",
        combination=dict.fromkeys(
            cell.path.rpartition("/")[0] for cell in ablations.constrained_cells(STUDY)
        ),
    ),
]
REPORT = ["<results>/report/index.html", *PARTS]
# Files that the first page lists, path below the results -> contents.
RESULT_FILES = {
    "overlap/iou.parquet": "every IoU, by cell of the grid and combination of sets, for the model and by layer and projection",
    "overlap/region_sizes.parquet": "size of every region by layer and projection",
    "overlap/BACKBONE/METHOD/SELECTION/REFINEMENT.iou.tsv": "square matrix of the pairwise IoUs",
    "regions/BACKBONE/METHOD/NAME/SELECTION": "the regions, as packed bits in safetensors files",
    **(
        {"behaviour/effects.parquet": "every effect of a region and of its controls"}
        if ABLATED
        else {}
    ),
    **(
        {"behaviour/constraint.parquet": "every fine-tuned model"}
        if CONSTRAINED
        else {}
    ),
}
FAREWELL = f"""
Done. In the folder {RESULTS}:
  report/                 figures, pages, and their tables; verdict.tsv has the verdict on every cell
  overlap/**/*.iou.tsv    IoU matrices; overlap/iou.parquet has every IoU
To get everything in one page:  snakemake --report report.html
Open this page first:  {RESULTS}/report/index.html
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


def shown_of_studies(file, title):
    """Mark the page of a comparison with another study, or a table of it, for the report."""
    return shown(
        f"compared/{file}", "8 Comparison", title, None, "compared", study="{study}"
    )


METHOD = ("backbone", "method")


def shown_of_behaviour(file, title, of=(*METHOD, "selection")):
    """Mark a figure of what regions do, or its table; ``of``: the wildcards that name those regions."""
    place = {name: f"{{{name}}}" for name in of}
    path, caption = "/".join([*place.values(), file]), Path(file).stem
    return shown(path, "7 Behaviour", title, "{backbone}", f"{caption}_figure", **place)


def made_files(folder):
    """Return the files below a results folder that say how its regions were made: regions, weights of organisms."""
    cells, names = grid.cells(STUDY), sorted(STUDY.identification)
    return {
        "regions": [
            f"{folder}/regions/{cell.backbone}/{cell.method}/{name}/{cell.selection}/{cell.refinement}.safetensors"
            for cell in cells
            for name in names
        ],
        "weights": collect(
            "{folder}/organisms/{organism}/model.safetensors",
            folder=folder,
            organism=STUDY.organisms,
        ),
    }


def made_elsewhere(study, kind):
    """Return those of `made_files` that the results of another study have."""
    files = made_files(STUDY.compare_with[study])[kind]
    return [path for path in files if Path(path).is_file()]


def has_first_page():
    """Whether the first page was among the targets of this run, so that it exists and is up to date."""
    return any(job.rule.name == "write_index" for job in workflow.dag.jobs)
