"""When a grid with stubs gets more backbones or sets, jobs need no more memory, and finished jobs do not run again.

A small grid runs with all tests. `make test-scale` runs the paper's grid, or only the part with its first
SCALE_BACKBONES backbones (3 or more).
"""

import os
from pathlib import Path, PurePath
from typing import NamedTuple

import pytest

from tests.scale.grid import (
    CONTROLLER,
    OVER_BACKBONES,
    PAPER,
    RESERVE,
    Size,
    Usage,
    added_jobs,
    by_script,
    jobs_of,
    make_grid,
    part_of_paper,
    run_measured,
)
from tests.workflow.conftest import Project

pytestmark = pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs /proc to read the memory of jobs"
)
MOST = 320
"""The most memory (MB) that a job of the grid may take; the plotting libraries take most of it."""

GROWTH = 12
"""MB by which the peak of a rule may grow from the grid of a few backbones to the grid of all."""

SPREAD = 64
"""The same for jobs that read all backbones. When they held all rows at once, the paper's grid took 700 MB more."""

ALL = int(os.environ.get("SCALE_BACKBONES", len(PAPER["backbones"])))
SMALL = Size(1, 2, 1, 1), Size(2, 2, 1, 1)
WHOLE = Size(2, 10, 3, 2), Size(ALL, 10, 3, 2)


class Grown(NamedTuple):
    """A grid that ran with a few backbones and then with all of them.

    Attributes:
        few, all: the costs of the two runs.
        first, config: the configs of the two runs.
        planned: the plan of the second run.
    """

    project: Project
    few: Usage
    all: Usage
    first: dict
    config: dict
    planned: dict[str, int]


SIZES = {
    "small": pytest.param(SMALL, marks=pytest.mark.slow),
    "whole": pytest.param(WHOLE, marks=pytest.mark.scale),
}


@pytest.fixture(scope="module", params=SIZES.values(), ids=SIZES)
def grown(request, tmp_path_factory) -> Grown:
    first, config = map(part_of_paper, request.param)
    project = make_grid(tmp_path_factory.mktemp("scale") / "grid", request.param[0])
    few = run_measured(project)
    project.config = config
    planned = project.plan()
    return Grown(project, few, run_measured(project), first, config, planned)


def test_a_grown_grid_runs_the_jobs_that_are_new_each_once(grown):
    assert grown.few.jobs == by_script(jobs_of(grown.first))
    assert grown.planned == added_jobs(grown.first, grown.config)
    assert grown.all.jobs == by_script(grown.planned)


def test_the_memory_of_a_job_does_not_depend_on_the_size_of_the_grid(grown):
    print(f"\n{figures(grown.few)}\n{figures(grown.all)}")
    few, whole = (
        {rule: max(peaks) for rule, peaks in usage.memory.items()} for usage in (grown.few, grown.all)
    )
    jobs = grown.all.jobs
    assert {rule: whole[rule] for rule in jobs if whole[rule] > MOST} == {}
    may_grow = dict.fromkeys(jobs, GROWTH) | dict.fromkeys(OVER_BACKBONES, SPREAD)
    assert {rule: (few[rule], whole[rule]) for rule in jobs if whole[rule] > few[rule] + may_grow[rule]} == {}


def test_a_grid_that_ran_has_nothing_to_do(grown):
    said = grown.project.snakemake("--cores", "2", "--quiet", "rules")
    assert "Nothing to be done" in said.stdout + said.stderr


def test_another_set_plans_its_own_jobs_and_the_aggregation(grown):
    """In the whole grid, the added set is the eleventh."""
    sets = grown.config["datasets"]
    more = {**sets, "identification": [*sets["identification"], RESERVE]}
    grown.project.config = {**grown.config, "datasets": more}
    try:
        planned, outputs = grown.project.plan(), grown.project.planned_outputs()
    finally:
        grown.project.config = grown.config
    assert planned == added_jobs(grown.config, {**grown.config, "datasets": more})
    places = [PurePath(path).relative_to("results").parts for path in outputs]
    assert {set_of(place) for place in places} - {None} == {RESERVE}
    assert sum(place[0] == "scores" for place in places) == 2 * planned["score"] + planned["sweep"], (
        "a score table and a sample of scores each"
    )


def set_of(place: tuple[str, ...]) -> str | None:
    """Return the set whose prompts, responses, scores or regions a file holds; None for a file of the aggregation."""
    if place[0] == "regions":
        return place[3]
    name = place[-1].partition(".")[0]
    return name if place[0] in ("prompts", "responses", "scores") and name != "shared_prompts" else None


def figures(usage: Usage) -> str:
    """Return the cost of a run as text: a line on its jobs, time and controller, then a line for each rule."""
    n, (controller,), (spent,) = sum(usage.jobs.values()), usage.memory[CONTROLLER], usage.cpu[CONTROLLER]
    head = f"{n} jobs in {usage.seconds / 60:.1f} min, {usage.seconds / n:.2f} s a job"
    rules = [
        f"  {rule:20}{n:6}, at most {max(usage.memory[rule]):4.0f} MB, {sum(usage.cpu[rule]) / n:.2f} CPU s each"
        for rule, n in usage.jobs.items()
    ]
    return "\n".join([f"{head}; controller: {controller:.0f} MB, {spent / n:.3f} CPU s a job", *rules])
