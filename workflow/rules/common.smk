"""Shared by all rules: the checked study, the cells of its grid, wildcards. No rules here."""

import sys
from functools import cache

from safety_regions.errors import StudyError
from safety_regions.study import grid
from safety_regions.study.adapters import ADAPTER_FILES, given_files, teachers
from safety_regions.study.code_version import code_version
from safety_regions.study.config import read_study
from safety_regions.study.method_shelf import (
    method_cards,
    method_module,
    own_selection,
)
from safety_regions.study.resources import gpus, kept_bytes, memory_mb, minutes
from safety_regions.study.snakemake_patches import patch_snakemake
from safety_regions.units.names import DATASET, NAME
from safety_regions.units.selections import RANKED

patch_snakemake()

try:
    STUDY = read_study(dict(config))
except StudyError as error:
    sys.exit(str(error))

CELLS = [cell.path for cell in grid.cells(STUDY)]
POOL_STEPS, BLOCK_PAIRS = grid.pool_steps(STUDY), grid.block_pairs(STUDY)
# What is made of a cell: the matrix always, the rest where the config asks for it.
CELL_TABLES = [
    "iou.tsv",
    *(["pools.parquet"] if POOL_STEPS else []),
    *(["sample_sizes.parquet"] if BLOCK_PAIRS else []),
]

# Selections that methods make themselves; all others are by rank.
OWN_SELECTIONS = "|".join(
    own["pattern"]
    for name in sorted({method.module for method in STUDY.methods.values()})
    for own in method_cards()[name]["own_selections"].values()
)


wildcard_constraints:
    dataset=DATASET,
    name=NAME,
    backbone=r"[a-z0-9][a-z0-9._-]*",
    organism=r"[a-z0-9][a-z0-9._-]*",
    method=r"[a-z0-9][a-z0-9_-]*",
    selection="|".join(filter(None, [RANKED, OWN_SELECTIONS])),
    refinement=rf"raw|minus-{DATASET}",
    utility=DATASET,


@cache
def script_version(script, *entries):
    """The code version of a rule: its script, and what the script loads by name."""
    return code_version(workflow.source_path(f"../scripts/{script}"), *entries)


def checkpoint_files(backbone):
    """Files a job that loads a backbone depends on."""
    if backbone in STUDY.organisms:
        return collect(
            "<results>/organisms/{backbone}/{file}",
            backbone=backbone,
            file=grid.CHECKPOINT_FILES,
        )
    return grid.local_checkpoint(STUDY.backbones[backbone])


def adapter_files(backbone):
    """Files of a backbone's adapter, as inputs of the jobs that score it: given in the config, or trained."""
    trained = collect(
        "<results>/adapters/{backbone}/{file}", backbone=backbone, file=ADAPTER_FILES
    )
    return given_files(STUDY.adapters, backbone) or trained


def regions_of(wildcards, names):
    """The regions of several names under the selection and refinement of a cell."""
    return collect(
        "<results>/regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors",
        name=names,
        **dict(wildcards),
    )


def refinements_of(wildcards):
    """The refinements of a backbone, method and selection, in the config's order."""
    place = f"{wildcards.backbone}/{wildcards.method}/{wildcards.selection}"
    cells = (cell.rpartition("/") for cell in CELLS)
    return [refinement for start, _, refinement in cells if start == place]


def cell_tables(kind):
    """An input function: one table of each refinement, in the order of `refinements_of`."""
    return lambda wc: collect(
        "<results>/overlap/{backbone}/{method}/{selection}/{refinement}.{kind}",
        refinement=refinements_of(wc),
        kind=kind,
        **dict(wc),
    )


def model_code(backbone):
    """The family's table, which code that loads a backbone reads by name."""
    return f"safety_regions.families.{STUDY.backbones[backbone]['family']}"


def kept_of(label):
    """Bytes a method keeps for each parameter while it scores."""
    return kept_bytes(STUDY.methods[label].module)
