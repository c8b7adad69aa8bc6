"""Definitions shared by all rules: the validated study, the cells of its grid, and the wildcards."""

import sys
from functools import cache

from safety_regions.errors import StudyError
from safety_regions.model.devices import visible_gpus
from safety_regions.study import comparisons, grid
from safety_regions.study.adapters import ADAPTER_FILES, given_files, teachers
from safety_regions.study.checkpoints import GGUF_FILE
from safety_regions.study.config import config_name, read_study
from safety_regions.study.forked_jobs import fork_local_jobs
from safety_regions.study.known_versions import known_version
from safety_regions.study.method_shelf import method_module, own_selection
from safety_regions.study.resources import (
    BASE_BYTES,
    TRAINING_BYTES,
    batch_size,
    gpus,
    kept_bytes,
    memory_mb,
    minutes,
    regions_mb,
    training_threads,
)
from safety_regions.study.snakemake_patches import patch_snakemake
from safety_regions.study.step_lines import print_step_lines
from safety_regions.units.names import DATASET, NAME
from safety_regions.units.selections import RANKED

patch_snakemake()
if workflow.is_main_process:
    fork_local_jobs()
    print_step_lines()

try:
    STUDY = read_study(
        dict(config), config_name(workflow.configfiles), workflow.configfiles
    )
except StudyError as error:
    sys.exit(str(error))

CELLS = [cell.path for cell in grid.cells(STUDY)]
POOL_STEPS = comparisons.pool_steps(STUDY)
COMPARED_METHODS = grid.compared_methods(STUDY)
# Organisms with a planted region, if a method's regions can be compared with it.
RECOVERED = STUDY.planted if grid.scored_methods(STUDY) else ()
HAS_BLOCKS = bool(STUDY.sample_sizes["sizes"])
CROSSED_PAIRS = comparisons.crossed_pairs(STUDY)
# Tables of a cell: the matrix always, the others if the config asks for them.
CELL_TABLES = [
    "iou.tsv",
    *(["pools.parquet"] if POOL_STEPS else []),
    *(["cores.parquet"] if STUDY.regroupings else []),
    *(["sample_sizes.parquet"] if HAS_BLOCKS else []),
    *(["crossed.parquet"] if CROSSED_PAIRS else []),
]

# Selections that a method defines itself; all others go by rank.
OWN_SELECTIONS = grid.own_patterns(STUDY)


wildcard_constraints:
    operation=r"[a-z][a-z_]*",
    dose=r"[-+.0-9e]+",
    dataset=DATASET,
    name=NAME,
    backbone=r"[a-z0-9][a-z0-9._-]*",
    organism=r"[a-z0-9][a-z0-9._-]*",
    method=r"[a-z0-9][a-z0-9_-]*",
    selection=rf"{RANKED}|{OWN_SELECTIONS}",
    refinement=rf"raw|minus-{DATASET}",
    utility=DATASET,
    region=r"[a-z0-9][a-z0-9-]*",
    plan=r"[a-z0-9][a-z0-9_]*",
    study=r"[a-z0-9][a-z0-9-]*",
    seed=r"\d+",


@cache
def script_version(script, *entries):
    """Return the code version of a rule: of its script, and of the modules that the script loads by name."""
    return known_version(workflow.source_path(f"../scripts/{script}"), *entries)


def checkpoint_files(backbone):
    """Return the files that a job depends on if it loads the backbone."""
    card = STUDY.models[backbone]
    if card["kind"] == "organism":
        return collect(
            "<results>/organisms/{backbone}/{file}",
            backbone=backbone,
            file=grid.CHECKPOINT_FILES,
        )
    if "gguf" in card:
        return collect(
            "<results>/checkpoints/{backbone}/{file}",
            backbone=backbone,
            file=grid.CONVERTED_FILES,
        )
    return grid.local_checkpoint(card)


def gpus_of(backbone, kept=0):
    """Return how many GPUs a job asks for that loads the backbone and keeps ``kept`` bytes per parameter.

    None if it runs on this machine and this machine has none: otherwise jobs would wait for each other. Whether jobs run
    here is known only after the rules are read.
    """
    without = workflow.local_exec and not visible_gpus()
    return 0 if without else gpus(STUDY.models[backbone], kept)


def base_files(backbone):
    """Return the files that a job depends on if it loads the backbone's base; none if its card names no base."""
    base = STUDY.backbones[backbone].get("base")
    return checkpoint_files(base) if base else []


def adapter_files(backbone):
    """Return the files of a backbone's adapter, given in the config or trained, as inputs of scoring jobs."""
    trained = collect(
        "<results>/adapters/{backbone}/{file}", backbone=backbone, file=ADAPTER_FILES
    )
    return given_files(STUDY.adapters, backbone) or trained


def scoring_inputs(wildcards):
    """Return what a job reads that scores a name: answers, which of them count, the checkpoint, a contrast, an adapter."""
    backbone, method, name = wildcards.backbone, wildcards.method, wildcards.name
    answers = "<results>/responses/{backbone}/{dataset}.parquet"
    contrast = STUDY.contrast_of(method)
    sets = {"responses": grid.name_datasets(name), "contrast": contrast or []}
    found = {
        key: collect(answers, backbone=backbone, dataset=sets[key]) for key in sets
    }
    found["shared"] = shared_tables(name, contrast)
    found["usable"] = collect(
        "<results>/usable/{backbone}.parquet",
        backbone=backbone if STUDY.samples["equal"] else [],
    )
    found["adapter"] = adapter_files(backbone) if STUDY.needs_adapter(method) else []
    found["checkpoint"] = checkpoint_files(backbone)
    pair, own = grid.reads_base(STUDY, backbone, method)
    found["base"] = base_files(backbone) if pair else []
    found["pair"] = collect(
        "<results>/checkpoints/{backbone}.base.json", backbone=backbone if pair else []
    )
    found["before"] = collect(
        "<results>/organisms/{organism}/base.safetensors",
        organism=backbone if own else [],
    )
    return found


def scoring_params(script):
    """Return the params of a job that scores a name with this script."""
    return {
        "backbone": lambda wc: grid.scoring(STUDY, wc.backbone, wc.method),
        "method": lambda wc: STUDY.methods[wc.method].module,
        "options": lambda wc: dict(sorted(STUDY.methods[wc.method].options.items())),
        "kept": lambda wc: dict(sorted(STUDY.methods[wc.method].kept.items())),
        "samples": STUDY.samples["identify"],
        "keep": lambda wc: grid.keep_of(STUDY, wc.name, STUDY.contrast_of(wc.method)),
        "code": lambda wc: script_version(
            script,
            model_code(wc.backbone),
            method_module(STUDY.methods[wc.method].module),
        ),
    }


def scoring_resources(job):
    """Return the resources of a job that scores a name; its time is that of `MINUTES[job]`."""
    return {
        "mem_mb": lambda wc, attempt: memory_mb(
            STUDY.backbones[wc.backbone], attempt, kept_of(wc.method)
        ),
        "runtime": lambda wc, attempt: minutes(
            job, STUDY.backbones[wc.backbone], attempt
        ),
        "gpu": lambda wc: gpus_of(wc.backbone, kept_of(wc.method)),
        "batch_size": 8,
    }


def shared_tables(*names):
    """Return the tables of prompts that the datasets of some names drop; none if the config keeps shared prompts."""
    return collect(
        "<results>/prompts/{dataset}.shared.parquet",
        dataset=(
            list(grid.keep_of(STUDY, *names)) if STUDY.samples["drop_shared"] else []
        ),
    )


def scores_of(wildcards, names):
    """Return, for a backbone and method, the score table of each name, or the frame (a folder) that holds it."""
    place = f"<results>/scores/{wildcards.backbone}/{wildcards.method}"
    frames = grid.scored_frames(STUDY, wildcards.method, names)
    return [
        f"{place}/{frames[name]}.frame" if name in frames else f"{place}/{name}.parquet"
        for name in names
    ]


def sweeps_of(wildcards, names):
    """Return the sweeps of several names that a method's own selection needs, if it needs them."""
    own = own_selection(STUDY.methods[wildcards.method].module, wildcards.selection)
    swept = list(names) if own["sweep"] else []
    return collect(
        "<results>/scores/{backbone}/{method}/{name}.sweep.parquet",
        **{**dict(wildcards), "name": swept},
    )


def own_selection_version(method):
    """Return the code version of a method's own selections."""
    entry = method_module(STUDY.methods[method].module, "selection")
    return script_version("select_regions.py", entry)


def frame_names(wildcards):
    """Return the names in the frame of a dataset: its halves and shuffles, shuffles last."""
    return grid.frame_names(
        STUDY, wildcards.method, wildcards.selection, wildcards.dataset
    )


def unshuffled(wildcards, names):
    """Return name -> the same without its shuffle, for shuffles whose refined regions are cut to the size of another."""
    found = {
        name: grid.unshuffled(STUDY, wildcards.method, wildcards.selection, name)
        for name in names
    }
    return {name: whole[0] for name, whole in found.items() if whole}


def refined_regions(wildcards, names):
    """Return the regions of several names without the units of a utility set."""
    return collect(
        "<results>/regions/{backbone}/{method}/{name}/{selection}/minus-{utility}.safetensors",
        **{**dict(wildcards), "name": list(names)},
    )


def removed_region(backbone, method, utility, selection):
    """Return the region of a utility set that refinements of a method's regions subtract."""
    remover, how = grid.removed_by(STUDY, method, selection)
    return f"<results>/regions/{backbone}/{remover}/{utility}/{how}/raw.safetensors"


def counted_table(backbone, method, selection, refinement):
    """Return the table that the overlaps of a cell are computed from: of memberships, or of shared dimensions."""
    kind = grid.counted_as(STUDY, method)
    return (
        f"<results>/overlap/{backbone}/{method}/{selection}/{refinement}.{kind}.parquet"
    )


def regions_of(wildcards, names):
    """Return, for a cell, the region file of each name, or the frame (a folder) that holds it."""
    backbone, method, selection, refinement = (
        wildcards[key] for key in ("backbone", "method", "selection", "refinement")
    )
    found, frames = [], grid.frames_of(STUDY, method, selection, names)
    for name in names:
        place = f"{frames.get(name, name)}/{selection}/{refinement}"
        kind = "frame" if name in frames else "safetensors"
        found.append(f"<results>/regions/{backbone}/{method}/{place}.{kind}")
    return found


def block_pairs(wildcards):
    """Return the pairs of blocks of prompts of a cell whose regions are compared."""
    return comparisons.block_pairs(STUDY, wildcards.method, wildcards.selection)


def refinements_of(wildcards):
    """Return the refinements of a backbone, method and selection, in the order of the config."""
    place = f"{wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    cells = (cell.rpartition("/") for cell in CELLS)
    return [refinement for start, _, refinement in cells if start == place]


def cell_tables(kind):
    """Return an input function for one table per refinement, in the order of `refinements_of`."""
    return lambda wc: collect(
        "<results>/overlap/{backbone}/{method}/{selection}/{refinement}.{kind}",
        refinement=refinements_of(wc),
        kind=kind,
        **dict(wc),
    )


def model_code(backbone):
    """Return the module of the backbone's family, which the code that loads the backbone imports by name."""
    return f"safety_regions.families.{STUDY.models[backbone]['family']}"


def kept_of(label):
    """Return how many bytes per parameter a method keeps in memory while it scores, the base's weights included."""
    base = BASE_BYTES if STUDY.needs_base(label) else 0
    return kept_bytes(STUDY.methods[label].module) + base
