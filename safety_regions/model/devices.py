"""Assigns the GPUs of a machine to jobs, so that two local jobs do not use the same device by accident.

Snakemake counts GPUs but does not assign them: every local job would see all devices. Here a job locks one file per
requested GPU. The kernel releases the locks when the process ends, also after a crash. Lock names contain the id of the
scheduler's allocation, because GPU numbers of different allocations are different devices.
"""

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
JOBS_PER_GPU = "SAFETY_REGIONS_JOBS_PER_GPU"
ALLOCATIONS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
PATIENCE = 0.2  # seconds between two attempts to get a device


@contextmanager
def assigned_gpus(wanted: int) -> Iterator[tuple[str, ...]]:
    """Make ``wanted`` GPUs visible to this process and its children; wait until that many are free.

    Enter the block before torch is imported. If fewer GPUs exist than requested, all are visible; if 0 are requested,
    none. The environment variable `JOBS_PER_GPU` sets how many jobs may share a GPU.
    """
    there = visible_gpus()
    with ExitStack() as locks:
        taken = _take(there, min(wanted, len(there)), locks)
        if there:
            print(f"GPUs assigned: {', '.join(taken) or 'none'} of {', '.join(there)}")
            locks.enter_context(_environment(VISIBLE, ",".join(taken)))
        yield taken


def visible_gpus() -> tuple[str, ...]:
    """The devices that CUDA may use: those in `VISIBLE` if it is set, else the numbers of NVIDIA's device files."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    numbers = (re.fullmatch(r"nvidia(\d+)", file.name) for file in Path("/dev").glob("nvidia*"))
    return tuple(str(n) for n in sorted(int(found[1]) for found in numbers if found))


def _take(there: tuple[str, ...], n: int, locks: ExitStack) -> tuple[str, ...]:
    while True:
        with ExitStack() as attempt:
            # One job at a time: otherwise two jobs that need two GPUs could hold one each and wait forever.
            attempt.enter_context(_locked("queue", wait=True))
            with ExitStack() as found:
                taken = _free(there, n, found)
                if len(taken) == n:
                    locks.push(found.pop_all())
                    return taken
        time.sleep(PATIENCE)


def _free(there: tuple[str, ...], n: int, locks: ExitStack) -> tuple[str, ...]:
    """Lock up to ``n`` free devices, those with fewest jobs first; ``locks`` holds the locks."""
    taken: list[str] = []
    for slot in range(int(os.environ.get(JOBS_PER_GPU, 1))):
        for gpu in there:
            if len(taken) < n and gpu not in taken:
                with suppress(BlockingIOError):
                    locks.enter_context(_locked(f"{gpu}.{slot}"))
                    taken.append(gpu)
    return tuple(taken)


@contextmanager
def _locked(name: str, wait: bool = False) -> Iterator[None]:
    allocation = next((os.environ[key] for key in ALLOCATIONS if key in os.environ), "local")
    file = re.sub(r"[^\w.-]", "_", f"safety-regions-{os.getuid()}-{allocation}-gpu-{name}.lock")
    where = Path(tempfile.gettempdir(), file)
    handle = os.open(where, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


@contextmanager
def _environment(key: str, value: str) -> Iterator[None]:
    before = os.environ.get(key)
    os.environ[key] = value
    try:
        yield
    finally:
        os.environ.pop(key)
        if before is not None:
            os.environ[key] = before
