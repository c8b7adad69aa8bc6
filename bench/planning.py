"""What does Snakemake itself cost: a plan, a rerun with nothing to do, a job that does nothing?"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.measure import Figure, Ran, command, require
from tests.paths import ROOT
from tests.workflow.conftest import Project, make_project

SNAKEMAKE = (sys.executable, "-m", "snakemake", "--nocolor")
DRY = ("--cores", "1", "--dry-run", "--quiet", "rules")
NOTHING = "Nothing to be done"
SCRIPT = "from pathlib import Path\n\nPath(snakemake.output[0]).touch()\n"
ONE_TIMER = "from safety_regions.study.snakemake_patches import keep_one_timer\n\nkeep_one_timer()\n"
RULES = """
rule all:
    input: expand("out/{{i}}", i=range({jobs}))

rule light:
    output: "out/{{i}}"
    script: "light.py"
"""


class Sizes(NamedTuple):
    """Number of light jobs, config whose plan is timed, its target in seconds, and whether a rerun is timed."""

    jobs: int = 300
    config: str = "config/paper.yaml"
    target: float = 15.0
    rerun: bool = True


FULL = Sizes()
TOY = Sizes(6, "config.yaml", 15.0, False)


def run(sizes: Sizes = FULL) -> Iterator[Figure]:
    """Yield seconds of planning, and seconds per job with one scheduler timer (ours) and with Snakemake's timers."""
    reading = command([*SNAKEMAKE, "--list-rules"], ROOT)
    floor = (reading.wall, "reading the Snakefile")
    if sizes.rerun:
        where, rerun = rerun_nothing()
        yield Figure(f"rerun of {where} with nothing to do (dry run)", rerun.wall, "s", *floor, at_most=5)
    planned = plan(sizes.config)
    what = f"plan of {sizes.config}, {jobs_of(planned)} jobs"
    yield Figure(what, planned.wall, "s", *floor, at_most=sizes.target)
    with tempfile.TemporaryDirectory() as folder:
        bare = command([sys.executable, "-c", ""], Path(folder))
        for name, head in (("one timer (ours)", ONE_TIMER), ("Snakemake's timers", "")):
            ran = light_jobs(Path(folder) / name, head, sizes.jobs)
            what = f"{sizes.jobs} jobs that do nothing, {name}: {{}} per job"
            yield Figure(what.format("CPU time"), ran.cpu / sizes.jobs, "s", bare.cpu, "starting Python")
            yield Figure(what.format("wall time"), ran.wall / sizes.jobs, "s", bare.wall / 2, "two at a time")


def plan(config: str) -> Ran:
    """Do a dry run of a study that has no results yet."""
    with tempfile.TemporaryDirectory() as folder:
        return command(
            [
                *SNAKEMAKE,
                "--configfile",
                ROOT / config,
                "--directory",
                folder,
                "-s",
                ROOT / "Snakefile",
                *DRY,
            ],
            ROOT,
        )


def jobs_of(planned: Ran) -> int:
    """Return the number of jobs that a dry run plans, according to its table."""
    totals = [line.split()[1] for line in planned.said.splitlines() if line.startswith("total ")]
    require(bool(totals) and int(totals[0]) > 1, "the plan of an empty folder has no jobs")
    return int(totals[0])


def rerun_nothing() -> tuple[str, Ran]:
    """Do a dry run of the default study if it is finished and up to date, else of the tests' tiny study."""
    ran = command([*SNAKEMAKE, *DRY], ROOT)
    if NOTHING in ran.said:
        return "the default study", ran
    with tempfile.TemporaryDirectory() as folder:
        project: Project = make_project(Path(folder) / "project")
        project.run()
        ran = command([*SNAKEMAKE, *DRY], project.folder, PYTHONPATH=str(project.folder))
    require(NOTHING in ran.said, "a dry run of a finished study plans jobs")
    return "the tests' tiny study", ran


def light_jobs(folder: Path, head: str, jobs: int) -> Ran:
    """Run ``jobs`` jobs that create one file each, two at a time."""
    folder.mkdir()
    (folder / "light.py").write_text(SCRIPT)
    (folder / "Snakefile").write_text(head + RULES.format(jobs=jobs))
    ran = command([*SNAKEMAKE, "--cores", "2", "--quiet", "rules", "progress"], folder, PYTHONPATH=str(ROOT))
    require(len(list((folder / "out").iterdir())) == jobs, "light jobs are missing")
    return ran
