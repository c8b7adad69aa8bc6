"""Assign the GPUs of this machine to jobs, so that two local jobs never share a device unless the user allows it.

Snakemake only counts GPUs and does not assign them, so all its local jobs would see every GPU. Here a job takes the
GPUs that it requested by locking one file per GPU; the kernel releases the locks when the job ends, even if it is
killed. The lock files of each allocation of a cluster scheduler are separate, because the same GPU number in another
allocation is a different device.
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
PATIENCE = 0.2  # seconds between two attempts when all devices are taken


@contextmanager
def assigned_gpus(wanted: int) -> Iterator[tuple[str, ...]]:
    """Wait for ``wanted`` free GPUs; inside the block, this process and its children see only those.

    Enter the block before torch looks for devices. If fewer GPUs exist than requested, all are assigned; if 0 are
    requested, none is visible. The environment variable `JOBS_PER_GPU` sets how many jobs may share a GPU.

    Yields:
        The assigned GPUs, as CUDA names them.
    """
    there = visible_gpus()
    with ExitStack() as locks:
        taken = _take(there, min(wanted, len(there)), locks)
        if there:
            print(f"GPUs assigned: {', '.join(taken) or 'none'} of {', '.join(there)}")
            locks.enter_context(_environment(VISIBLE, ",".join(taken)))
        yield taken


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that CUDA may use: those in `VISIBLE` if it is set, else the numbers of NVIDIA's device files."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    numbers = (re.fullmatch(r"nvidia(\d+)", file.name) for file in Path("/dev").glob("nvidia*"))
    return tuple(str(n) for n in sorted(int(found[1]) for found in numbers if found))


def _take(there: tuple[str, ...], n: int, locks: ExitStack) -> tuple[str, ...]:
    while True:
        with ExitStack() as attempt:
            # Only one job tries at a time; otherwise two jobs that want two GPUs could hold one each and wait for ever.
            attempt.enter_context(_locked("queue", wait=True))
            with ExitStack() as found:
                taken = _free(there, n, found)
                if len(taken) == n:
                    locks.push(found.pop_all())
                    return taken
        time.sleep(PATIENCE)


def _free(there: tuple[str, ...], n: int, locks: ExitStack) -> tuple[str, ...]:
    """Up to ``n`` devices that can take another job, least used first; their locks are added to ``locks``."""
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
