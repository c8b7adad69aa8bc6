"""However often the scheduler asks for another round, one timer at a time runs, and the round comes."""

import time
from threading import Semaphore, active_count

from snakemake.scheduling.job_scheduler import JobScheduler

from safety_regions.scheduler import keep_one_timer


class Rounds:
    """What the method of Snakemake's scheduler needs of it."""

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
