"""With profiles/slurm and a real Slurm, jobs get their resources, results are correct, and failed jobs run again."""

import os
import platform
import re
import signal
import subprocess
from collections import Counter

import pytest

from safety_regions.study.resources import gpus, kept_bytes, memory_mb, minutes
from tests.slurm.conftest import QUICK, TARGETS

pytestmark = pytest.mark.slurm
NAMES = ("one", "plain", "two")
SCORES = [f"results/scores/tiny/snip/{name}.parquet" for name in NAMES]
# Snakemake and torch need more than 300 MB. The set that hangs gets one minute, Slurm's shortest time limit.
TIGHT = (
    "--set-resources",
    "score:mem_mb=(300 if wildcards.name == 'plain' else 2500) * attempt ** 2",
    "score:runtime=(1 if wildcards.name == 'two' else 10) * attempt",
)


def rule_of(record) -> str:
    """Return the rule of a job, such as score for rule_score_wildcards_tiny_snip_one, or "group" for a group job."""
    return next((rule for rule in ("write_responses", "score") if f"rule_{rule}" in record.comment), "group")


def of_score(records, name):
    return [r for r in records if rule_of(r) == "score" and r.comment.endswith(f"_{name}")]


def test_scoring_ran_in_slurm_with_the_gpu_memory_and_time_of_its_card(remote):
    card = remote.project.config["cards"]["backbones"]["tiny"]
    scores = [r for r in remote.records if rule_of(r) == "score"]
    assert sorted(r.comment.rpartition("_")[2] for r in scores) == list(NAMES)
    kept = kept_bytes("snip")
    for record in scores:
        assert record.state == "COMPLETED" and record.partition == "gpu"
        assert record.gpus == gpus(card, kept) == 1
        assert record.memory_mb == memory_mb(card, kept=kept)
        assert record.minutes == minutes("score", card)
    answers = [r for r in remote.records if rule_of(r) == "write_responses"]
    assert [(r.gpus, r.memory_mb) for r in answers] == [(1, memory_mb(card))] * 3
    assert memory_mb(card) < memory_mb(card, kept=kept), "a method that keeps sums must ask for more memory"


def test_cheap_jobs_share_submissions_and_ask_for_no_gpu(remote):
    """Three submissions hold all other jobs: the prompts, one cell, and the aggregation."""
    groups = [r for r in remote.records if rule_of(r) == "group"]
    assert len(groups) == 3 and all(r.state == "COMPLETED" for r in groups)
    assert {(r.gpus, r.partition) for r in groups} == {(0, "cpu")}
    assert all(r.cpus <= 4 and r.memory_mb <= 4 * 4000 for r in groups)
    jobs = len(list((remote.project.folder / "logs").rglob("*.log")))
    assert jobs > 2 * len(remote.records) and len(remote.records) == 3 + 3 + 3, Counter(
        map(rule_of, remote.records)
    )


def test_the_accounts_hold_every_job_and_the_gpu_it_had(remote):
    """No job ran on another node, and no job had a GPU that it did not ask for."""
    assert remote.accounts.keys() == {record.jobid for record in remote.records}
    node = platform.node().partition(".")[0]
    assert {(a.state, a.node, a.account) for a in remote.accounts.values()} == {("COMPLETED", node, "lab")}
    for record in remote.records:
        account = remote.accounts[record.jobid]
        assert int(account.asked.get("gres/gpu", 0)) == int(account.got.get("gres/gpu", 0)) == record.gpus
        assert account.got["cpu"] == str(record.cpus)


def test_jobs_are_asked_after_with_sacct(remote):
    """The executor chooses sacct by itself; the profile does not set the command."""
    assert set(re.findall(r"command=(\w+)", remote.said)) == {"sacct"}


def test_results_are_those_of_a_local_run_bit_for_bit(remote):
    def results(project):
        folder = project.folder / "results"
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    here, there = results(remote.local), results(remote.project)
    assert here.keys() == there.keys() and {"overlap/iou.parquet"} < here.keys()
    science = [path for path in here if path.endswith((".parquet", ".safetensors", ".tsv"))]
    assert [path for path in science if here[path] != there[path]] == []


def test_a_study_that_ran_in_slurm_has_nothing_to_do_here(remote):
    assert remote.project.plan("--cores=1", *TARGETS) == {}


def test_cancelled_hung_and_too_large_jobs_run_again_with_more(slurm, unscored, remote):
    """The executor reads job states with squeue here, as on a cluster without accounting."""
    before = len(slurm.records())
    run = _start(slurm, unscored, *SCORES, *TIGHT, "--slurm-status-command=squeue")
    try:
        new = {name: _running(slurm, name, before) for name in ("one", "two")}
        _hang(slurm, new["two"])
        slurm.ask("scancel", str(new["one"].jobid))
        said, _ = run.communicate(timeout=240)
    finally:
        run.kill()
    assert run.returncode == 0, said
    records = slurm.records()[before:]
    first, second = ({n: of_score(records, n)[i] for n in NAMES} for i in (0, 1))
    assert len(records) == 6
    accounts = slurm.accounts()
    assert [accounts[record.jobid].state for record in records] == [record.state for record in records]
    assert first["one"].state == "CANCELLED" and first["two"].state == "TIMEOUT"
    # Snakemake outlives the step that was killed, so Slurm may report the job itself as failed.
    assert first["plain"].state in ("FAILED", "OUT_OF_MEMORY") and slurm.ran_out_of_memory(first["plain"])
    assert not any(map(slurm.ran_out_of_memory, second.values()))
    assert {r.state for r in second.values()} == {"COMPLETED"}
    assert (first["plain"].memory_mb, second["plain"].memory_mb) == (300, 1200)
    assert (first["two"].minutes, second["two"].minutes) == (1, 2)
    for path in SCORES:
        assert (unscored.folder / path).read_bytes() == (remote.project.folder / path).read_bytes()


def test_without_retries_what_failed_is_named_and_the_rest_goes_on(slurm, unscored):
    before = len(slurm.records())
    run = unscored.snakemake(*SCORES[:2], *QUICK, *TIGHT, "--retries=0", check=False)
    records = slurm.records()[before:]
    assert run.returncode == 1 and len(records) == 2
    said = run.stdout + run.stderr
    error = said.partition("Error in rule score")[2].partition("\n\n")[0]
    assert "results/scores/tiny/snip/plain.parquet" in error and "snip/one" not in error
    dead = of_score(records, "plain")[0]
    assert str(dead.jobid) in said and slurm.ran_out_of_memory(dead)
    assert of_score(records, "one")[0].state == "COMPLETED"
    assert [(unscored.folder / path).is_file() for path in SCORES[:2]] == [True, False]


def test_a_cancelled_job_is_noticed_with_sacct(slurm, unscored):
    before = len(slurm.records())
    run = _start(slurm, unscored, SCORES[0])
    try:
        slurm.ask("scancel", str(_running(slurm, "one", before).jobid))
        slurm.wait_for(lambda r: r in of_score(slurm.records()[before:], "one")[1:])
        said, _ = run.communicate(timeout=240)
    finally:
        run.kill()
    assert run.returncode == 0, said


def _start(slurm, project, *arguments) -> subprocess.Popen:
    return project.start(*arguments, *QUICK, "--retries=1", SLURM_CONF=slurm.env["SLURM_CONF"])


def _running(slurm, name, before):
    """Wait until the scoring job of a name runs, and return it."""
    return slurm.wait_for(
        lambda r: r in of_score(slurm.records()[before:], name) and r.state == "RUNNING", seconds=90
    )


def _hang(slurm, record) -> None:
    """Suspend the processes of a job; for Slurm, the job runs until its time limit."""
    for line in slurm.ask("scontrol", "listpids", str(record.jobid)).splitlines()[1:]:
        pid = int(line.split()[0])
        if pid > 0:
            os.kill(pid, signal.SIGSTOP)
