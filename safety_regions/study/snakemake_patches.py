"""Monkey-patches for two bugs, one in Snakemake 9 and one in its Slurm executor plugin.

*Timers.* Snakemake 9 limits job starts to 100 per second. Every scheduling round starts a timer that triggers another
round one second later. Timers accumulate: after a thousand jobs, a thousand rounds per second walk the whole plan
(measured: 2.8 s of CPU per job in a study of 1,476 jobs). The patch starts a timer only if none is running.

*Cancelled jobs.* Slurm's accounting reports "CANCELLED by 0". The executor plugin (2.8) recognises only "CANCELLED" and
waits forever for such a job. The patch removes the suffix.
"""

import sys
from threading import Timer

SLURM = "snakemake_executor_plugin_slurm"


def patch_snakemake() -> None:
    """Apply both patches, each only where the code to patch exists."""
    keep_one_timer()
    if SLURM in sys.modules:
        know_cancelled_jobs(sys.modules[SLURM])


def keep_one_timer() -> None:
    """Allow one running timer per scheduler; do nothing if this Snakemake has no such timers."""
    try:
        from snakemake.scheduling.job_scheduler import JobScheduler
    except ImportError:
        return
    if hasattr(JobScheduler, "_schedule_reevalutation"):
        JobScheduler._schedule_reevalutation = _reevaluate_once


def know_cancelled_jobs(plugin) -> None:
    """Make the executor ignore what follows a job state; applied once, and only to versions that need it."""
    asked = getattr(plugin, "query_job_status", None)
    if asked is None or hasattr(asked, "patched"):
        return

    async def query_job_status(command, logger):
        states, seconds = await asked(command, logger)
        return states and {job: state.partition(" by ")[0] for job, state in states.items()}, seconds

    query_job_status.patched = True
    plugin.query_job_status = query_job_status


def _reevaluate_once(scheduler, delay: float) -> None:
    running = getattr(scheduler, "reevaluation", None)
    if running is None or not running.is_alive():
        scheduler.reevaluation = Timer(delay, scheduler._open_jobs.release)
        scheduler.reevaluation.start()
