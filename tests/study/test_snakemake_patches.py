"""Snakemake's scheduler has at most one timer for its next round, and cancelled Slurm jobs are known as cancelled."""

import asyncio
import time
from threading import Semaphore, active_count
from types import SimpleNamespace

from snakemake.scheduling.job_scheduler import JobScheduler

from safety_regions.study.snakemake_patches import keep_one_timer, know_cancelled_jobs


class Rounds:
    """The parts of Snakemake's scheduler that its patched method needs."""

    def __init__(self) -> None:
        self._open_jobs = Semaphore(0)

    def ask(self, delay: float) -> None:
        JobScheduler._schedule_reevalutation(self, delay)


def test_many_rounds_one_timer(monkeypatch):
    monkeypatch.setattr(JobScheduler, "_schedule_reevalutation", JobScheduler._schedule_reevalutation)
    keep_one_timer()
    rounds, before = Rounds(), active_count()
    for _ in range(50):
        rounds.ask(0.2)
    assert active_count() <= before + 1
    assert rounds._open_jobs.acquire(timeout=5) and not rounds._open_jobs.acquire(blocking=False)
    time.sleep(0.05)
    rounds.ask(0.01)
    assert rounds._open_jobs.acquire(timeout=5)


def test_who_cancelled_a_job_is_no_part_of_its_state():
    states = {"1": "CANCELLED by 0", "2": "COMPLETED", "3": "RUNNING"}

    async def query(command, logger):
        return (None, None) if command == "down" else (states, 0.5)

    plugin = SimpleNamespace(query_job_status=query)
    know_cancelled_jobs(plugin)
    know_cancelled_jobs(plugin)  # as when a workflow is read twice
    found, seconds = asyncio.run(plugin.query_job_status("sacct", None))
    assert found == states | {"1": "CANCELLED"} and seconds == 0.5
    assert asyncio.run(plugin.query_job_status("down", None)) == (None, None)
    know_cancelled_jobs(SimpleNamespace())  # another version of the plugin: there is nothing to patch
