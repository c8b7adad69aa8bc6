"""A cluster with a submit command runs a part of the tiny study, through the plugin that docs/cluster.md names."""

import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import yaml

from tests.workflow.conftest import Project, make_project

pytestmark = pytest.mark.slow

pytest.importorskip("snakemake_executor_plugin_cluster_generic", reason="the plugin is not installed")

CELL = "results/overlap/tiny/snip/row-0.05/raw.iou.tsv"
KINDS = ("**/*.parquet", "**/*.safetensors", "**/*.tsv")

# Each job of this cluster is a session in the background, and has the number of its session. A job that is not killed
# writes its exit status to a file. While the cluster is full, jobs wait.
PROGRAMS = {
    "submit": """\
for script; do :; done
setsid sh -c 'while [ -e cluster/full ]; do sleep 0.1; done
sh "$0"; echo $? >cluster/$$.part; mv cluster/$$.part cluster/$$.status' "$script" >/dev/null 2>&1 &
echo "$!" "$@" >>cluster/submitted
echo "$!"
""",
    "status": """\
touch cluster/asked
if kill -0 "$1" 2>/dev/null; then echo running
elif [ "$(cat "cluster/$1.status" 2>/dev/null)" = 0 ]; then echo success
else echo failed; fi
""",
    "cancel": """\
for job; do kill -s KILL -- "-$job"; done
""",
}
SETTINGS = {
    "executor": "cluster-generic",
    "cluster-generic-submit-cmd": "cluster/submit"
    " --mem={resources.mem_mb} --time={resources.runtime} --gpus={resources.gpu}",
    "cluster-generic-status-cmd": "cluster/status",
    "cluster-generic-cancel-cmd": "cluster/cancel",
}
TOLD = r"(\d+) --mem=(\d+) --time=(\d+) --gpus=(\d+) \S+/snakejob\.(\w+)\.\S*"
QUICK = ("--workflow-profile=profiles/generic", "--jobs=2", "--seconds-between-status-checks=1")
_Found = TypeVar("_Found")


class Submitted(NamedTuple):
    """A job, with the resources that the submit command received."""

    session: int
    memory_mb: int
    minutes: int
    gpus: int
    rule: str


def make_cluster(project: Project) -> Project:
    """Add a cluster to the project, and the Slurm profile with the changes that docs/cluster.md describes."""
    profile = yaml.safe_load((project.folder / "profiles/slurm/config.yaml").read_text())
    profile = {key: value for key, value in profile.items() if not key.startswith("slurm-")} | SETTINGS
    profile["default-resources"]["gpu"] = 0
    (project.folder / "profiles/generic").mkdir()
    (project.folder / "profiles/generic/config.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    (project.folder / "cluster").mkdir()
    for name, text in PROGRAMS.items():
        program = project.folder / "cluster" / name
        program.write_text(f"#!/bin/sh\n{text}")
        program.chmod(0o755)
    return project


def submitted(project: Project) -> list[Submitted]:
    """Return every job so far, oldest first; the name of a job's script contains its rule."""
    file = project.folder / "cluster/submitted"
    lines = file.read_text().splitlines() if file.exists() else []
    told = [re.fullmatch(TOLD, line) for line in lines]
    return [Submitted(*map(int, job.groups()[:4]), job[5]) for job in told]


def wait_for(what: Callable[[], _Found], seconds: float = 120) -> _Found:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)
    return found


def scoring(project: Project) -> Submitted | None:
    """Return the first job of rule score once such a job has started, and None before."""
    at_work = any((project.folder / "logs/score").rglob("*.log"))
    return next((job for job in submitted(project) if at_work and job.rule == "score"), None)


def is_gone(job: Submitted) -> bool:
    try:
        os.killpg(job.session, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_cell_has_the_bits_of_a_local_run_though_one_of_its_jobs_is_killed(finished, tmp_path):
    project = make_cluster(make_project(tmp_path / "project"))
    run = project.start(CELL, *QUICK)
    try:
        killed = wait_for(lambda: scoring(project))
        os.killpg(killed.session, signal.SIGKILL)
        said, _ = run.communicate(timeout=300)
    finally:
        run.kill()
    assert run.returncode == 0, said
    assert said.count("Error in rule score") == said.count("Trying to restart job") == 1
    assert f"external_jobid: {killed.session}" in said
    there, here = project.contents(KINDS), finished.contents(KINDS)
    assert Path(CELL).relative_to("results") in there
    rooms = {"prompts": 3 + 1, "responses": 3, "scores": 2 * 3, "regions": 3, "overlap": 3}
    assert Counter(path.parts[0] for path in there) == rooms
    assert {path for path in there if there[path] != here[path]} == set()
    jobs = submitted(project)
    assert Counter(job.rule for job in jobs if job.gpus) == {"write_responses": 3, "score": 3 + 1}
    assert len([job for job in jobs if not job.gpus]) == 2, "prompts share one submission, the cell another"
    more = {job for job in jobs if job.rule == "score" and job.memory_mb > killed.memory_mb}
    assert [(job.memory_mb, job.minutes) for job in more] == [(2 * killed.memory_mb, 2 * killed.minutes)]


def test_an_interrupted_run_takes_its_jobs_with_it(project):
    score = "results/scores/tiny/snip/one.parquet"
    (project.folder / score).unlink()
    shutil.rmtree(project.folder / "logs")
    full = make_cluster(project).folder / "cluster/full"
    full.touch()  # the job cannot end before it is interrupted
    run = project.start(score, *QUICK)
    try:
        wait_for(
            (project.folder / "cluster/asked").exists
        )  # Snakemake knows the job's id, so it can cancel it
        job = submitted(project)[0]
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=60)
    finally:
        run.kill()
        full.unlink()  # a job that was not cancelled ends
    assert run.returncode != 0 and not (project.folder / score).exists(), said
    assert "--cluster-cancel failed" not in said, said
    wait_for(lambda: is_gone(job), seconds=10)
