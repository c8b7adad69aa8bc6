"""The jobs of a study that change regions: the cells whose regions are changed, and what each job reads.

Pure functions of a `Study`; the rules turn their results into paths.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from safety_regions.study.adapters import ADAPTER_FILES
from safety_regions.study.behaviour import (
    GIVEN,
    compares_with_base,
    exports,
    given_regions,
    operations,
    plans,
)
from safety_regions.study.config import RAW, Study
from safety_regions.study.grid import Cell, cells, compared_utility, paired
from safety_regions.study.grid import loading as plain_loading
from safety_regions.study.method_shelf import granularity_of
from safety_regions.units.behaviour import (
    CORE,
    DIRECTION,
    HARMFUL,
    ORDINARY,
    OTHER,
    PRIVATE,
    REWIND,
    TASK,
    UTILITY,
)


def tested_cells(study: Study) -> list[Cell]:
    """The cells of the grid whose regions are ablated."""
    return chosen_cells(study) if study.behaviour.get("operations") else []


def dosed_cells(study: Study) -> dict[str, list[Cell]]:
    """The ablated cells of every backbone and method of which several selections are ablated, by its path."""
    found: dict[str, list[Cell]] = {}
    for cell in tested_cells(study):
        found.setdefault(f"{cell.backbone}/{cell.method}", []).append(cell)
    return {place: same for place, same in found.items() if len({cell.selection for cell in same}) > 1}


def constrained_cells(study: Study) -> dict[Cell, list[str]]:
    """The cells whose regions are constrained in fine-tuning, with their `constraint_runs`.

    Regions of LoRA factors and of ranks cannot be constrained.
    """
    return {
        cell: runs
        for cell in chosen_cells(study)
        if not (kind := granularity_of(study.methods[cell.method].module)).factors
        and not kind.subspaces
        and (runs := constraint_runs(study, cell.method))
    }


def chosen_cells(study: Study) -> list[Cell]:
    """The cells of the grid that the section chooses; none without it.

    Unless the config lists methods, data-free ones are left out: their regions are what the controls are.
    """
    section = study.behaviour
    if not section:
        return []
    methods = section["methods"] or [label for label in study.methods if not study.is_data_free(label)]
    wanted = (
        section["backbones"] or list(study.backbones),
        methods,
        section["refinements"] or list(study.refinements),
    )
    return [
        cell
        for cell in cells(study)
        if all(value in among for value, among in zip((cell[0], cell[1], cell[3]), wanted, strict=True))
    ]


def given_cells(study: Study) -> list[Cell]:
    """The cells of regions from files, with the name of the region in the place of the selection."""
    section = study.behaviour
    backbones = (section["backbones"] or list(study.backbones)) if section else []
    return [
        Cell(backbone, GIVEN, name, RAW)
        for backbone in backbones
        for name in given_regions(section, backbone, backbone in study.planted)
    ]


def ablated_files(study: Study) -> list[str]:
    """The paths of `given_cells`, if regions are ablated."""
    return [cell.path for cell in given_cells(study)] if study.behaviour.get("operations") else []


def exported_models(study: Study) -> list[str]:
    """The folders of the models that are written as checkpoints, below ``exported/``."""
    if not study.behaviour:
        return []
    changes = [f"{name}-{dose:g}" for name, doses in exports(study.behaviour).items() for dose in doses]
    regions = [
        f"{cell.backbone}/{cell.method}/{name}/{cell.selection}/{cell.refinement}"
        for cell in chosen_cells(study)
        for name in sorted(study.identification)
    ]
    regions += [f"{cell.backbone}/{GIVEN}/{cell.selection}" for cell in given_cells(study)]
    return [f"{region}/{change}" for region in regions for change in changes]


def constraint_runs(study: Study, method: str) -> list[str]:
    """The constraint jobs of a region of a method, or of one from a file (`GIVEN`): plan-seed."""
    if not study.behaviour:
        return []
    return [
        f"{name}-{seed}"
        for name, plan in plans(study.behaviour).items()
        if plan["methods"] is None or method in (GIVEN, *plan["methods"])
        for seed in range(plan["seeds"])
    ]


def ablation_operations(study: Study) -> list[str]:
    """The operations that ablation jobs may use."""
    section = study.behaviour
    whole = ["orthogonalise"] if section and DIRECTION in section["controls"] else []
    return sorted({*section.get("operations", ()), *whole})


def constraint_operations(study: Study) -> list[str]:
    """The operations that constraint jobs may use."""
    planned = plans(study.behaviour).values() if study.behaviour else ()
    return sorted({"base", REWIND, *(name for plan in planned for name in plan["restore"])})


def constraint_plan(study: Study, name: str) -> dict:
    """A plan for a job: the argument of `behaviour.job.constrain`, without what says which jobs there are."""
    plan = plans(study.behaviour)[name].items()
    plan = {key: value for key, value in plan if key not in ("seeds", "methods")}
    return {"name": name, **dict(sorted(plan.items()))}


def given_file(study: Study, backbone: str, name: str) -> str | None:
    """The file of a region; None for the planted region of an organism."""
    return given_regions(study.behaviour, backbone, backbone in study.planted)[name]


def judge_adapter(study: Study, name: str) -> list[str]:
    """The files of the adapter in a folder that makes a checkpoint a judge; none if it has none, or one on the Hub."""
    path = study.judges[name]["judge"].get("adapter", {}).get("path")
    return [str(Path(path) / file) for file in ADAPTER_FILES] if path else []


def plan(study: Study) -> dict:
    """The arguments of `behaviour.ablation.Plan`."""
    section = study.behaviour
    return {
        "operations": operations(section),
        "controls": list(section["controls"]),
        "draws": section["draws"],
        "generated": section["generated"],
        **({key: section[key] for key in ("tasks", "task_folder")} if section["tasks"] else {}),
    }


def compared_sets(study: Study, job: Mapping) -> dict[str, list[str]]:
    """The sets whose regions the region of a job is compared with: utility sets, other identification sets.

    Both are empty unless a control asks for them.

    Args:
        job: ``method``, ``name`` and ``refinement`` of the region.
    """
    asked = set(study.behaviour["controls"])
    others = sorted(set(study.identification) - {job["name"]})
    return {
        UTILITY: _utility(study, job, asked),
        OTHER: others if asked & {OTHER, CORE, PRIVATE} else [],
    }


def constrained_utility(study: Study, job: Mapping) -> list[str]:
    """The utility sets whose regions are constrained in the place of that of a job, in the order of their draws.

    Args:
        job: ``method``, ``refinement`` and ``plan``.
    """
    return _utility(study, job, plans(study.behaviour)[job["plan"]]["controls"])


def _utility(study: Study, job: Mapping, asked: Collection[str]) -> list[str]:
    return compared_utility(study, job["method"], job["refinement"]) if UTILITY in asked else []


def loading(study: Study, backbone: str) -> dict:
    """`grid.loading` of a backbone, and of its base if that is a checkpoint whose weights are read."""
    card = study.backbones[backbone]
    return paired(card) if reads_checkpoint_of_base(study, backbone) else plain_loading(card)


def reads_checkpoint_of_base(study: Study, backbone: str) -> bool:
    """Whether jobs load the base of a backbone. That of an organism is a file of its own."""
    return compares_with_base(study.behaviour) and study.backbones[backbone]["kind"] != "organism"


def reads_own_base(study: Study, backbone: str) -> bool:
    """Whether jobs read the weights of an organism before alignment."""
    return compares_with_base(study.behaviour) and study.backbones[backbone]["kind"] == "organism"


def roles(study: Study) -> dict[str, str]:
    """Dataset -> role of its held-out prompts, for all studied datasets; tasks of lm-eval are ordinary prompts."""
    ordinary = sorted({*study.utility, *(TASK + name for name in study.behaviour.get("tasks", ()))})
    return dict.fromkeys(sorted(study.identification), HARMFUL) | dict.fromkeys(ordinary, ORDINARY)
