"""Free memory of a device: what the machine has left, what its limits leave, and what a job has asked for."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

CPU = torch.device("cpu")
# Files with a control group's limit and use, by the controllers in /proc/self/cgroup: version 2, version 1.
GROUP_FILES = {
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}


def free_bytes(device: torch.device, limit: int | None = None) -> int:
    """Memory that this process may still allocate on a device.

    Args:
        device: a GPU, or the CPU.
        limit: maximum host memory of the process in total (the job's request), bytes; None: no such limit.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    held = _held()
    free = [psutil.virtual_memory().available, *_left_to_process(held), *left_to_groups()]
    if limit is not None:
        free.append(limit - held["RssAnon"])
    return max(0, min(free))


def _held() -> dict[str, int]:
    """Memory of this process in bytes, by the counters of Linux; on other systems only its resident set."""
    status = Path("/proc/self/status")
    if not status.exists():
        return {"RssAnon": psutil.Process().memory_info().rss}
    lines = (line.split() for line in status.read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line[-1] == "kB"}


def _left_to_process(held: dict[str, int]) -> Iterator[int]:
    for limit, key in (("RLIMIT_DATA", "VmData"), ("RLIMIT_AS", "VmSize")):
        most = psutil.Process().rlimit(getattr(psutil, limit))[0] if key in held else -1
        if most >= 0:
            yield most - held[key]


def left_to_groups(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Bytes left below the limit of each control group of this process (Linux, versions 1 and 2)."""
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers in GROUP_FILES:
            most, used = GROUP_FILES[controllers]
            top = root / controllers
            group = top / path.lstrip("/")
            for folder in (group, *group.parents[: len(group.parts) - len(top.parts)]):
                limit = _text(folder / most)
                if limit.isdigit():
                    yield int(limit) - int(_text(folder / used)) + _cached_files(folder)


def _text(file: Path) -> str:
    return file.read_text().strip() if file.is_file() else ""


def _cached_files(group: Path) -> int:
    """Bytes of the file cache in a control group, which the kernel frees before the limit is reached."""
    values = dict(line.split() for line in _text(group / "memory.stat").splitlines())
    return sum(int(values.get(key, 0)) for key in ("active_file", "inactive_file"))
