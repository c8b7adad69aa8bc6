"""Definitions shared by the rules of behaviour and its report: whose regions are changed, and what such jobs read."""

from safety_regions.study import ablations
from safety_regions.study.operation_shelf import operation_module
from safety_regions.study.resources import ABLATION_BYTES

# Cells whose regions are ablated: those of methods, and regions from files.
TESTED = [cell.path for cell in ablations.tested_cells(STUDY)]
ABLATED = TESTED + ablations.ablated_files(STUDY)
# Backbones and methods of which regions of several sizes are ablated.
DOSED = list(ablations.dosed_cells(STUDY))
CONSTRAINED = [
    *[
        f"<results>/behaviour/{cell.backbone}/{cell.method}/{name}/{cell.selection}/{cell.refinement}.{run}.constraint.parquet"
        for cell, runs in ablations.constrained_cells(STUDY).items()
        for name in sorted(STUDY.identification)
        for run in runs
    ],
    *[
        f"<results>/behaviour/{cell.backbone}/given/{cell.selection}.{run}.constraint.parquet"
        for cell in ablations.given_cells(STUDY)
        for run in ablations.constraint_runs(STUDY, "given")
    ],
]
EXPORTED = ablations.exported_models(STUDY)
BEHAVIOUR_TABLES = [
    *(["ablation", "effects", "transfer", "transfer_pairs"] if ABLATED else []),
    *(["constraint"] if CONSTRAINED else []),
]


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
        "batch_size": lambda wc: batch_size(STUDY.backbones[wc.backbone]),
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


def dosed_tables(wildcards, kind):
    """Return the tables of a kind of all tested regions of a backbone and method."""
    cells = ablations.dosed_cells(STUDY)[f"{wildcards.backbone}/{wildcards.method}"]
    return [f"<results>/behaviour/{cell.path}.{kind}.parquet" for cell in cells]


def constrained_utility(wildcards):
    """Return the regions of utility sets that are constrained in the place of a region."""
    return regions_of(wildcards, ablations.constrained_utility(STUDY, dict(wildcards)))


def compared_regions(wildcards, kind):
    """Return the regions of other sets, of a kind (utility or other), that a region is compared with."""
    names = ablations.compared_sets(STUDY, dict(wildcards))[kind]
    return regions_of(wildcards, names)
