"""Two mends of Snakemake and its Slurm executor, each where its user cannot help it.

*One timer.* Snakemake 9 limits job starts to 100 a second. Each round of scheduling sets a timer for another round a
second later, which sets the next, so after a thousand jobs a thousand rounds a second look at the whole plan: 2.8 s of
CPU a job were measured in a study of 1,476 jobs. A timer that is still running makes a new one needless.

*Cancelled jobs.* Slurm's accounts say who cancelled a job, "CANCELLED by 0". The executor (2.8) knows the bare word
only and takes such a job for one that runs, for ever.
"""

import sys
from threading import Timer

SLURM = "snakemake_executor_plugin_slurm"


def mend_snakemake() -> None:
    """Both mends, each where there is something to mend."""
    keep_one_timer()
    if SLURM in sys.modules:
        know_cancelled_jobs(sys.modules[SLURM])


def keep_one_timer() -> None:
    """Let at most one timer of a scheduler run at a time; nothing where Snakemake has no such timers."""
    try:
        from snakemake.scheduling.job_scheduler import JobScheduler
    except ImportError:
        return
    if hasattr(JobScheduler, "_schedule_reevalutation"):
        JobScheduler._schedule_reevalutation = _reevaluate_once


def know_cancelled_jobs(plugin) -> None:
    """Let the executor read a job's state without the words behind it; once, and only in versions that have this."""
    asked = getattr(plugin, "query_job_status", None)
    if asked is None or hasattr(asked, "mended"):
        return

    async def query_job_status(command, logger):
        states, seconds = await asked(command, logger)
        return states and {job: state.partition(" by ")[0] for job, state in states.items()}, seconds

    query_job_status.mended = True
    plugin.query_job_status = query_job_status


def _reevaluate_once(scheduler, delay: float) -> None:
    running = getattr(scheduler, "reevaluation", None)
    if running is None or not running.is_alive():
        scheduler.reevaluation = Timer(delay, scheduler._open_jobs.release)
        scheduler.reevaluation.start()
