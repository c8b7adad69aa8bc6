"""The tests start a Slurm on this machine, and run the tiny study through it and without it."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.workflow.conftest import Project, make_project

SCRIPT = Path(__file__).parent / "slurm.sh"
# The tests use the profile as it is, but shorten its waiting times.
QUICK = (
    "--workflow-profile=profiles/slurm",
    "--slurm-init-seconds-before-status-checks=2",
    "--latency-wait=10",
)

# All tables of results; tests/workflow tests the figures.
TARGETS = ("results/overlap/iou.parquet", "results/prompts/shared_prompts.parquet")


class Record(NamedTuple):
    """A job as scontrol shows it; ``comment`` holds the rule and its wildcards as the executor writes them."""

    jobid: int
    state: str
    reason: str
    comment: str
    partition: str
    memory_mb: int
    minutes: int
    gpus: int
    cpus: int


class Account(NamedTuple):
    """A job as sacct shows it; ``asked`` and ``got`` are the requested and the allocated resources in Slurm's words."""

    jobid: int
    state: str
    node: str
    account: str
    asked: dict[str, str]
    got: dict[str, str]


class Slurm:
    """A running Slurm, whose records of jobs the tests read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = os.environ | {"SLURM_CONF": str(folder / "etc" / "slurm.conf")}

    def ask(self, *command: str) -> str:
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=True).stdout

    def records(self) -> list[Record]:
        """Return every job so far, oldest first."""
        lines = self.ask("scontrol", "--oneliner", "show", "job").splitlines()
        return sorted(_record(line) for line in lines if line.startswith("JobId="))

    def accounts(self, seconds: float = 30) -> dict[int, Account]:
        """Return job number -> the job in slurmdbd's database; wait for the database to have the latest states."""
        columns = "--format=JobIDRaw,State,NodeList,Account,ReqTRES,AllocTRES"
        end = time.monotonic() + seconds
        while True:
            said = self.ask("sacct", "-X", "-n", "-P", "--allusers", "--starttime=now-2days", columns)
            found = {account.jobid: account for account in map(_account, said.splitlines())}
            states = {jobid: account.state for jobid, account in found.items()}
            if states == {r.jobid: r.state for r in self.records()} or time.monotonic() > end:
                return found
            time.sleep(0.5)

    def ran_out_of_memory(self, record: Record) -> bool:
        """Return whether slurmd killed a step of the job because of its memory, by cgroup or by polling."""
        log = (self.folder / "log" / "slurmd.log").read_text()
        return re.search(rf"\[{record.jobid}\..*(oom-kill|memory limit)", log) is not None

    def wait_for(self, what: Callable[[Record], bool], seconds: float = 60) -> Record:
        """Wait for a job for which ``what`` is true, and return the first such job."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for record in self.records():
                if what(record):
                    return record
            time.sleep(0.2)
        raise AssertionError("no such job: " + "; ".join(map(str, self.records())))


def _record(line: str) -> Record:
    said = dict(re.findall(r"(\S+?)=(\S*)", line))
    hours, minutes, _ = said["TimeLimit"].rpartition("-")[2].split(":")
    days = said["TimeLimit"].rpartition("-")[0] or "0"
    unit = {"M": 1, "G": 1024}[said["MinMemoryNode"][-1]]
    return Record(
        jobid=int(said["JobId"]),
        state=said["JobState"],
        reason=said["Reason"],
        comment=said.get("Comment", ""),
        partition=said["Partition"],
        memory_mb=round(float(said["MinMemoryNode"][:-1]) * unit),
        minutes=(int(days) * 24 + int(hours)) * 60 + int(minutes),
        gpus=int(re.sub(r"^gres:gpu:", "", said.get("TresPerJob", "0"))),
        cpus=int(said["NumCPUs"]),
    )


def _account(line: str) -> Account:
    jobid, state, node, account, *resources = line.split("|")
    asked, got = (dict(each.split("=") for each in said.split(",") if each) for said in resources)
    return Account(int(jobid), state.split(" by ")[0], node, account, asked, got)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    """Start a Slurm, and stop it after the tests, also if they fail."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("needs root and apt-get, to install and start a Slurm on this machine")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPT, "install"], check=True)
    try:
        subprocess.run([SCRIPT, "start", folder], check=True)
        yield Slurm(folder)
    finally:
        subprocess.run([SCRIPT, "stop", folder], check=True)


def _study(folder: Path) -> Project:
    """Make the tiny study with one method, so that there are few jobs.

    As in the catalog, the card of the backbone gives its number of parameters. In the profile, only the account is
    changed.
    """
    project = make_project(folder)
    config = project.config
    config["methods"] = {"snip": {}}
    config["cards"]["backbones"]["tiny"]["parameters"] = 2e8
    project.config = config
    project.edit("profiles/slurm/config.yaml", "# slurm_account: my-account", "slurm_account: lab")
    return project


class Finished(NamedTuple):
    """A study that ran on this machine, the same study through Slurm, the output of that run, and Slurm's records."""

    local: Project
    project: Project
    said: str
    records: list[Record]
    accounts: dict[int, Account]


@pytest.fixture(scope="session")
def remote(slurm, tmp_path_factory) -> Finished:
    """Run the tiny study through Slurm and without it at the same time, since Snakemake mostly waits for Slurm."""
    here, there = (_study(tmp_path_factory.mktemp(name) / "project") for name in ("local", "remote"))
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(here.run, *TARGETS), pool.submit(there.snakemake, *TARGETS, *QUICK, "--verbose")]
    _, run = [run.result() for run in runs]
    return Finished(here, there, run.stdout + run.stderr, slurm.records(), slurm.accounts())


@pytest.fixture
def unscored(remote, tmp_path) -> Project:
    """Return a copy of the study that ran through Slurm, without its scores."""
    copy = tmp_path / "project"
    shutil.copytree(remote.project.folder, copy, copy_function=shutil.copy2)
    shutil.rmtree(copy / "results" / "scores")
    return Project(copy)
