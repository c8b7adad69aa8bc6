"""Two patches for problems in Snakemake and its Slurm executor that a user cannot work around.

*One timer.* Snakemake 9 limits job starts to 100 per second. Each scheduling round sets a timer for another round one
second later, which sets the next. After a thousand jobs, a thousand rounds per second examine the whole plan: we
measured 2.8 s of CPU per job in a study of 1,476 jobs. The patch sets no new timer while one is still running.

*Cancelled jobs.* Slurm's accounting names who cancelled a job, "CANCELLED by 0". The executor (2.8) recognises only
"CANCELLED" and treats such a job as running for ever.
"""

import sys
from threading import Timer

SLURM = "snakemake_executor_plugin_slurm"


def patch_snakemake() -> None:
    """Apply both patches, each only if it is needed."""
    keep_one_timer()
    if SLURM in sys.modules:
        know_cancelled_jobs(sys.modules[SLURM])


def keep_one_timer() -> None:
    """Let at most one timer of a scheduler run at a time; do nothing if Snakemake has no such timers."""
    try:
        from snakemake.scheduling.job_scheduler import JobScheduler
    except ImportError:
        return
    if hasattr(JobScheduler, "_schedule_reevalutation"):
        JobScheduler._schedule_reevalutation = _reevaluate_once


def know_cancelled_jobs(plugin) -> None:
    """Strip " by ..." from a job's state before the executor reads it; patch once, and only versions that need it."""
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
