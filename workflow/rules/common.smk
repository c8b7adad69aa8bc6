"""Definitions shared by all rules: the validated study, the cells of its grid, and the wildcards."""

import sys
from functools import cache

from safety_regions.errors import StudyError
from safety_regions.model.devices import visible_gpus
from safety_regions.study import ablations, comparisons, grid
from safety_regions.study.adapters import ADAPTER_FILES, given_files, teachers
from safety_regions.study.checkpoints import GGUF_FILE
from safety_regions.study.config import config_name, read_study
from safety_regions.study.known_versions import known_version
from safety_regions.study.method_shelf import method_module, own_selection
from safety_regions.study.operation_shelf import operation_module
from safety_regions.study.resources import (
    ABLATION_BYTES,
    BASE_BYTES,
    TRAINING_BYTES,
    gpus,
    kept_bytes,
    memory_mb,
    minutes,
    regions_mb,
    training_threads,
)
from safety_regions.study.snakemake_patches import patch_snakemake
from safety_regions.units.names import DATASET, NAME
from safety_regions.units.selections import RANKED

patch_snakemake()

try:
    STUDY = read_study(
        dict(config), config_name(workflow.configfiles), workflow.configfiles
    )
except StudyError as error:
    sys.exit(str(error))

CELLS = [cell.path for cell in grid.cells(STUDY)]
POOL_STEPS = comparisons.pool_steps(STUDY)
HAS_BLOCKS = bool(STUDY.sample_sizes["sizes"])
CROSSED_PAIRS = comparisons.crossed_pairs(STUDY)
# Tables of a cell: the matrix always, the others if the config asks for them.
CELL_TABLES = [
    "iou.tsv",
    *(["pools.parquet"] if POOL_STEPS else []),
    *(["sample_sizes.parquet"] if HAS_BLOCKS else []),
    *(["crossed.parquet"] if CROSSED_PAIRS else []),
]

# Jobs that run on this machine ask for no GPU where it has none: otherwise each would wait for the GPU of another.
NO_GPU = workflow.local_exec and not visible_gpus()

# Selections that a method defines itself; all others go by rank.
OWN_SELECTIONS = grid.own_patterns(STUDY)
SHUFFLE_KINDS = grid.shuffle_kinds(STUDY)


# Cells whose regions are ablated: those of methods, and regions from files.
TESTED = [cell.path for cell in ablations.tested_cells(STUDY)]
ABLATED = TESTED + ablations.ablated_files(STUDY)
CONSTRAINED = [
    *[
        f"<results>/behaviour/{cell.backbone}/{cell.method}/{name}/{cell.selection}/{cell.refinement}.{run}.constraint.parquet"
        for cell in ablations.constrained_cells(STUDY)
        for name in sorted(STUDY.identification)
        for run in ablations.constraint_runs(STUDY)
    ],
    *[
        f"<results>/behaviour/{cell.backbone}/given/{cell.selection}.{run}.constraint.parquet"
        for cell in ablations.given_cells(STUDY)
        for run in ablations.constraint_runs(STUDY)
    ],
]
EXPORTED = ablations.exported_models(STUDY)
BEHAVIOUR_TABLES = [
    *(["ablation", "effects", "transfer", "transfer_pairs"] if ABLATED else []),
    *(["constraint"] if CONSTRAINED else []),
]


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
    """Return how many GPUs a job asks for that loads the backbone and keeps ``kept`` bytes per parameter."""
    return 0 if NO_GPU else gpus(STUDY.backbones[backbone], kept)


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


def base_read_by_ablation(backbone):
    """Return the files with the weights before alignment: of a base checkpoint, or of an organism itself."""
    own = ablations.reads_own_base(STUDY, backbone)
    loaded = ablations.reads_checkpoint_of_base(STUDY, backbone)
    return {
        "base": base_files(backbone) if loaded else [],
        "before": collect(
            "<results>/organisms/{organism}/base.safetensors",
            organism=backbone if own else [],
        ),
    }


# What every job that changes a backbone's weights reads, beside a region.
CHANGED_INPUTS = {
    "responses": collect(
        "<results>/responses/{{backbone}}/{dataset}.parquet",
        dataset=sorted(grid.studied_datasets(STUDY)),
    ),
    "checkpoint": lambda wc: checkpoint_files(wc.backbone),
    "base": lambda wc: base_read_by_ablation(wc.backbone)["base"],
    "before": lambda wc: base_read_by_ablation(wc.backbone)["before"],
}


def exported_params(labels):
    """Return the params of a job that writes a changed model; ``labels``: those of its region, from the wildcards."""
    return {
        "backbone": lambda wc: ablations.loading(STUDY, wc.backbone),
        "family": lambda wc: STUDY.models[wc.backbone]["family"],
        "operation": lambda wc: wc.operation,
        "dose": lambda wc: float(wc.dose),
        "labels": labels,
        "code": lambda wc: script_version(
            "export_model.py", model_code(wc.backbone), operation_module(wc.operation)
        ),
    }


def changed_params(script, operations):
    """Return the params of a job that measures changed weights; ``operations``: those that it may use."""
    modules = [operation_module(name) for name in operations]
    return {
        "backbone": lambda wc: ablations.loading(STUDY, wc.backbone),
        "roles": lambda wc: ablations.roles(STUDY),
        "max_new_tokens": STUDY.responses["max_new_tokens"],
        "code": lambda wc: script_version(script, model_code(wc.backbone), *modules),
    }


def changed_resources(job, kept):
    """Return the resources of a job that changes a backbone's weights and keeps ``kept`` bytes per parameter."""
    return {
        "mem_mb": lambda wc, attempt: memory_mb(
            STUDY.backbones[wc.backbone], attempt, kept
        ),
        "runtime": lambda wc, attempt: minutes(
            job, STUDY.backbones[wc.backbone], attempt
        ),
        "gpu": lambda wc: gpus_of(wc.backbone, kept),
        "batch_size": 16,
    }


def behaviour_table(kind):
    """Return the table of a kind for all cells, as a list: of one file, or of none if the study has no such table."""
    return collect(
        "<results>/behaviour/{kind}.parquet",
        kind=kind if kind in BEHAVIOUR_TABLES else [],
    )


def given_labels(wildcards):
    """Return the labels of a region from a file: its name stands for selection and set."""
    return {
        "backbone": wildcards.backbone,
        "method": "given",
        "selection": wildcards.region,
        "refinement": "raw",
        "name": wildcards.region,
    }


def given_region(wildcards):
    """Return the file of a region that no method of the study found: the config's, or an organism's planted region."""
    file = ablations.given_file(STUDY, wildcards.backbone, wildcards.region)
    planted = f"<results>/organisms/{wildcards.backbone}/truth.safetensors"
    return file or planted


def tested(wildcards, refinement):
    """Whether the regions of a backbone, method, selection and refinement are changed."""
    return "/".join([*dict(wildcards).values(), refinement]) in TESTED


def behaviour_of_cells(wildcards, kind):
    """Return the tables of a kind of the refinements of a backbone, method and selection that are tested."""
    return collect(
        "<results>/behaviour/{backbone}/{method}/{selection}/{refinement}.{kind}.parquet",
        refinement=[r for r in refinements_of(wildcards) if tested(wildcards, r)],
        kind=kind,
        **dict(wildcards),
    )


def compared_regions(wildcards, kind):
    """Return the regions of other sets, of a kind (utility or other), that a region is compared with."""
    names = ablations.compared_sets(STUDY, dict(wildcards))[kind]
    return regions_of(wildcards, names)


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
    found["base"] = base_files(backbone) if STUDY.needs_base(method) else []
    found["pair"] = collect(
        "<results>/checkpoints/{backbone}.base.json",
        backbone=backbone if STUDY.needs_base(method) else [],
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


def shuffled_scores(kind, part=""):
    """Return the score tables (or a ``part`` of them) of all shuffles of a name of one kind: one job writes them."""
    return collect(
        "<results>/scores/{{backbone}}/{{method}}/{{name}}~{seed}{kind}{part}.parquet",
        seed=grid.shuffle_seeds(STUDY),
        kind=kind,
        part=part,
    )


def regions_of(wildcards, names):
    """Return the region files of several names for the selection and refinement of a cell."""
    return collect(
        "<results>/regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors",
        **{**dict(wildcards), "name": names},
    )


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
