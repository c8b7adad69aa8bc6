"""GPUs of this machine, lent to one job at a time: two local jobs are never on one device unless that is wanted.

Snakemake counts GPUs and gives none away, so that all its local jobs would see all of them. Here a job takes as many
as it asked for by locking a file for each, which the kernel unlocks when the job ends, however it ends. Jobs of one
scheduler's allocation lend among themselves; what another allocation sees under the same number is another device.
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
PATIENCE = 0.2  # seconds between two looks at devices that are all taken


@contextmanager
def lent_gpus(wanted: int) -> Iterator[tuple[str, ...]]:
    """Within the block this process, and what it starts, sees ``wanted`` GPUs that no other job has; waits for them.

    To be entered before torch looks for devices. Sees all there are where fewer are there, none where none is
    wanted. `JOBS_PER_GPU` in the environment lets so many jobs share one.
    """
    there = visible_gpus()
    with ExitStack() as locks:
        taken = _take(there, min(wanted, len(there)), locks)
        if there:
            print(f"GPUs lent: {', '.join(taken) or 'none'} of {', '.join(there)}")
            locks.enter_context(_environment(VISIBLE, ",".join(taken)))
        yield taken


def visible_gpus() -> tuple[str, ...]:
    """What CUDA may see, as it names them: `VISIBLE` where it is set, else the numbers of NVIDIA's device files."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    numbers = (re.fullmatch(r"nvidia(\d+)", file.name) for file in Path("/dev").glob("nvidia*"))
    return tuple(str(n) for n in sorted(int(found[1]) for found in numbers if found))


def _take(there: tuple[str, ...], n: int, locks: ExitStack) -> tuple[str, ...]:
    while True:
        with ExitStack() as attempt:
            # One job looks at a time, or two that want two each could hold one each and wait for ever.
            attempt.enter_context(_locked("queue", wait=True))
            with ExitStack() as found:
                taken = _free(there, n, found)
                if len(taken) == n:
                    locks.push(found.pop_all())
                    return taken
        time.sleep(PATIENCE)


def _free(there: tuple[str, ...], n: int, locks: ExitStack) -> tuple[str, ...]:
    """Up to ``n`` devices with room for a job, emptier ones first; ``locks`` holds their locks."""
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
