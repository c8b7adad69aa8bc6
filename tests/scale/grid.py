"""The paper's grid runs in a copy of the project, in which stubs replace the scripts that need a model or the Hub."""

import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from safety_regions.study.config import read_study
from safety_regions.study.forked_jobs import SWITCH
from safety_regions.units.selections import parse_selection
from tests.paths import ROOT
from tests.workflow.conftest import PARTS, Project

HERE = Path(__file__).parent
PAPER = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
RESERVE = "xstest-unsafe"
"""An identification set of the catalog that the paper's grid does not contain."""

AGGREGATION = {"compare_prompts", "count_membership", "compute_overlap", "gather_overlaps", "draw_overlap",
               "draw_ladders", "draw_refusals", "write_shared_prompts", "write_verdict", "write_index"}  # fmt: skip
"""The rules whose jobs read all identification sets."""

OVER_BACKBONES = {"gather_overlaps", "draw_ladders", "draw_refusals", "write_verdict", "write_index"}
"""The rules of `AGGREGATION` whose jobs read all backbones."""

SCRIPTS = {
    "select_region": "select_regions",
    "select_own": "select_regions",
    "refine_region": "refine_regions",
}
"""The scripts of the rules that are not named after theirs."""

CONTROLLER = "__main__"


class Size(NamedTuple):
    """The size of a part of the paper's grid: how many backbones, sets per role and selections per method it has."""

    backbones: int
    identification: int
    utility: int
    selections: int


class Usage(NamedTuple):
    """The cost of a run: script -> peak memory (MB) and CPU seconds of each of its jobs; duration in ``seconds``."""

    memory: Mapping[str, list[float]]
    cpu: Mapping[str, list[float]]
    seconds: float

    @property
    def jobs(self) -> dict[str, int]:
        """Script -> number of its jobs."""
        return {script: len(peaks) for script, peaks in self.memory.items() if script != CONTROLLER}


def part_of_paper(size: Size) -> dict:
    """Return the config of a part of the paper's grid: its first backbones, sets and selections."""
    sets = {role: PAPER["datasets"][role][: getattr(size, role)] for role in ("identification", "utility")}
    teachers = {"harmful": sets["identification"], "helpful": sets["utility"]}
    adapters = {side: [n for n in PAPER["adapters"][side] if n in known] for side, known in teachers.items()}
    methods = {
        label: {
            key: value[: size.selections] if key == "selections" else value for key, value in given.items()
        }
        for label, given in PAPER["methods"].items()
    }
    backbones = PAPER["backbones"][: size.backbones]
    return PAPER | {"backbones": backbones, "datasets": sets, "adapters": adapters, "methods": methods}


def make_grid(folder: Path, size: Size) -> Project:
    """Make a copy of the project whose study is a part of the paper's grid, and replace heavy scripts with stubs."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source, ignore = ROOT / part, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=ignore)
        else:
            shutil.copy(source, folder / part)
    for stub in (HERE / "stubs").glob("*.py"):
        shutil.copy(stub, folder / "workflow" / "scripts")
    shutil.copy(HERE / "usage_notes.py", folder / "sitecustomize.py")
    project = Project(folder)
    project.config = part_of_paper(size)
    return project


def jobs_of(config: dict) -> dict[str, int]:
    """Return rule -> number of jobs of a study of checkpoints with SafeLayer, from formulas written by hand.

    The overlaps of a cell also compare the utility sets that the cell does not subtract, so these sets are refined too.
    For a method that scores layers, the set that it contrasts with is not compared.
    """
    sets, methods = config["datasets"], read_study(config).methods.values()
    b, i, u = len(config["backbones"]), len(sets["identification"]), len(sets["utility"])
    selections = [(method, text) for method in methods for text in method.selections]
    kinds = {
        "select_region": sum(parse_selection(text) is not None for _, text in selections),
        "select_own": sum(parse_selection(text) is None for _, text in selections),
    }
    refined = [i * u + ((u - 1) ** 2 if m.granularity == "layer" else u * (u - 1)) for m, _ in selections]
    of_sets = {
        "write_responses": 1,
        "score": len(methods),
        **kinds,
        "sweep": sum(text == "range" for _, text in selections),
    }
    of_cells = dict.fromkeys(("count_membership", "compute_overlap"), 1 + u) | {"draw_overlap": 1}
    once = AGGREGATION - of_cells.keys() - {"draw_ladders"}
    return {
        "read_prompts": i + u + 1,  # plus the questions of SafeLayer's sweep
        "compare_with_earlier": i + u,  # as shared prompts are dropped
        **dict.fromkeys(("train_adapter", "draw_ladders"), b),
        "refine_region": b * sum(refined),
        **{rule: n * b * (i + u) for rule, n in of_sets.items()},
        **{rule: n * b * len(selections) for rule, n in of_cells.items()},
        **dict.fromkeys(once, 1),
    }


def added_jobs(before: dict, after: dict) -> dict[str, int]:
    """Return rule -> number of jobs that a finished study runs after its config has grown.

    These are the jobs of the added sets or backbones, and the aggregation over what changed.
    """
    old, new = jobs_of(before), jobs_of(after)
    again = OVER_BACKBONES if before["datasets"] == after["datasets"] else AGGREGATION
    counts = {rule: n if rule in again else n - old[rule] for rule, n in new.items()}
    return {rule: n for rule, n in counts.items() if n}


def by_script(jobs: Mapping[str, int]) -> dict[str, int]:
    """Return script -> number of jobs, from the number of jobs of each rule."""
    counts = defaultdict(int)
    for rule, n in jobs.items():
        counts[SCRIPTS.get(rule, rule)] += n
    return dict(counts)


def run_measured(project: Project) -> Usage:
    """Run a grid on two cores, and read the memory and time that each process wrote when it ended.

    Each job is a Python of its own, as on a cluster: a fork would share memory with the libraries of other jobs.
    """
    notes = project.folder / "usage.tsv"
    notes.unlink(missing_ok=True)
    command = [sys.executable, "-m", "snakemake", "--nocolor", "--cores", "2", "--resources", "gpu=2"]
    env = os.environ | {"PYTHONPATH": str(project.folder), "USAGE_NOTES": str(notes), SWITCH: "0"}
    start = time.monotonic()
    done = subprocess.run(
        [*command, "--quiet", "rules", "progress"],
        cwd=project.folder,
        env=env,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    memory, cpu = defaultdict(list), defaultdict(list)
    for script, peak, used in (line.split("\t") for line in notes.read_text().splitlines()):
        script = script.removesuffix(".py").rpartition(".")[2]
        memory[script].append(int(peak) / 1024)
        cpu[script].append(float(used))
    return Usage(memory, cpu, seconds)
