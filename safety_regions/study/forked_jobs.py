"""Runs the Python scripts of local jobs in forks of one process that has already imported the large libraries.

A study has hundreds of short jobs, and importing torch and transformers takes longer than most of them. Snakemake
starts a new Python for every job. With `fork_local_jobs`, the fork server of the standard library imports the libraries
once, and each job is a fork of it, with an environment, a working directory, an exit status and a benchmark of its own.

A job still starts a Python of its own where a fork would not do: in an environment of Snakemake's (conda, container,
modules), with several threads (libraries size their thread pools when they are imported), or with a GPU (CUDA does not
survive a fork).
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.connection import wait

import psutil

SWITCH = "SAFETY_REGIONS_FORK"
"""Set this environment variable to 0 to start a new Python for every job."""
LIBRARIES = (
    "snakemake.script",
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "scipy.special",
    "torch",
    "safetensors.torch",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "matplotlib.figure",
    "matplotlib.backends.backend_svg",
)
"""What the server imports; a library that is not installed is left out."""
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "GOTO_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ),
    "1",
)
TEMPORARY = ("TMPDIR", "TMP", "TEMPDIR", "TEMP")
PATIENCE = 0.02  # seconds between two looks at whether a killed job is gone

SERVER_LOST = 255  # how multiprocessing reports a process whose server ended first

_LOCK = threading.Lock()  # multiprocessing's list of processes is not safe to use from several threads


def fork_local_jobs() -> None:
    """Make Snakemake fork the jobs that can be forked; do nothing if this Snakemake runs scripts in another way."""
    from snakemake.script import PythonScript

    start = getattr(PythonScript, "_execute_cmd", None)
    if os.environ.get(SWITCH) == "0" or "forkserver" not in multiprocessing.get_all_start_methods():
        return
    if start is None or hasattr(start, "forks"):
        return

    def execute(script, command, **context):
        if not _forkable(script) or "fname" not in context:
            return start(script, command, **context)
        return _fork(script, str(context["fname"]))

    execute.forks = True
    PythonScript._execute_cmd = execute


def _forkable(script) -> bool:
    other = (script.conda_env, script.container_img, script.env_modules, script.shadow_dir)
    return not any(other) and script.threads == 1 and not script.resources.get("gpu", 0)


def _fork(script, path: str) -> None:
    """Run a script in a fork of the server.

    Raises:
        CalledProcessError: the job ended with another status than 0.
    """
    from snakemake.benchmark import benchmarked

    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["__main__", *LIBRARIES])
    temporary = dict.fromkeys(
        TEMPORARY if script.resources.get("tmpdir") else (), script.resources.get("tmpdir")
    )
    job = forks.Process(target=_run, args=(path, {**os.environ, **ONE_THREAD, **temporary}))
    with _LOCK, _environment(ONE_THREAD):
        job.start()
    with nullcontext() if script.bench_record is None else benchmarked(job.pid, script.bench_record):
        wait([job.sentinel])
    with _LOCK:
        job.join()
    if job.exitcode == SERVER_LOST:
        _end(job.pid)
    if job.exitcode:
        raise subprocess.CalledProcessError(job.exitcode, [sys.executable, path])


def _run(path: str, environment: dict[str, str]) -> None:
    """Run a script as the main program, in the fork."""
    threading.Thread(target=_end_with_snakemake, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # read the environment again
    sys.argv, sys.path = [path], [os.path.dirname(path), *sys.path]
    runpy.run_path(path, run_name="__main__")


def _end_with_snakemake() -> None:
    """Wait for the end of Snakemake, then end this job: the next run may write the same files."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGKILL)


def _end(pid: int) -> None:
    """End a job whose server was killed, and wait until it is gone: Snakemake deletes the files of a failed job."""
    with suppress(psutil.NoSuchProcess):
        job = psutil.Process(pid)
        job.kill()
        while job.status() != psutil.STATUS_ZOMBIE:
            time.sleep(PATIENCE)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for a process that is started in the block."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
