"""Memory of a scoring pass: what is free, what the pass will take, and what gives way where that is too much.

    layers' sums + max(batch * one sample's pass + one gradient, one matrix's scores)  <=  what is free, on each device

One sample, the longest, is passed first and measured; the sums are known. The batch gives way first (a smaller one
costs little), then the layers a pass serves (each further pass costs a forward and part of a backward), and sums of
finished layers wait on the CPU or, where that has no room either, on the disk. What still runs out is tried again
with half the batch. A batch size changes no result beyond rounding, and the layers a pass serves not even that.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from safety_regions.errors import StudyError, explain

Bytes = Counter[torch.device]
"""Bytes on each device."""

# Bytes per weight of the largest matrix while its scores are formed and their best kept (keep.py): measured.
KEEPING = 40
# What allocators lose to fragments and libraries take for themselves, as a factor on what a sample's pass takes.
SLACK = 1.25
CPU = torch.device("cpu")
# A control group's limit and use, by the controllers that /proc/self/cgroup names: version 2, version 1.
GROUP_FILES = {
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}
REMEDY = (
    "more memory (`set-resources: score: mem_mb=...`), more or larger GPUs, `dtype: bfloat16` in the backbone's "
    "card, or shorter samples (a smaller `max_new_tokens`, a filter in the dataset's card)"
)
Item, Result = TypeVar("Item"), TypeVar("Result")


class OutOfMemory(StudyError):
    """A pass ran out of memory with one sample at a time."""


class Plan(NamedTuple):
    """Samples per batch, and for each pass the decoder blocks that it serves; one pass serves all where it fits."""

    batch_size: int
    passes: tuple[range, ...]


class Needs(NamedTuple):
    """What a pass takes: ``sums`` of each decoder block, ``sample`` for each sample of a batch, and either
    ``gradient`` beside them or, once the pass is over, ``scoring``.
    """

    sums: Sequence[Bytes]
    sample: Bytes
    gradient: Bytes
    scoring: Bytes

    def of(self, layers: range, batch_size: int) -> Bytes:
        """Bytes of a pass that serves ``layers`` with batches of ``batch_size``."""
        passing = Counter({d: int(SLACK * batch_size * n) for d, n in self.sample.items()}) + self.gradient
        return sum((self.sums[layer] for layer in layers), passing | self.scoring)


def plan_passes(needs: Needs, free: Bytes, batch_size: int) -> Plan:
    """The fewest passes that fit and, of these, the largest batch up to ``batch_size``, halved as often as needed.

    Raises:
        StudyError: not even one decoder block and one sample fit.
    """
    passes, first, n = [], 0, len(needs.sums)
    while first < n:
        fitting = [end for end in range(first + 1, n + 1) if _fits(needs.of(range(first, end), 1), free)]
        if not fitting:
            raise StudyError(_too_little(needs.of(range(first, first + 1), 1), free))
        passes.append(range(first, fitting[-1]))
        first = fitting[-1]
    while batch_size > 1 and not all(_fits(needs.of(layers, batch_size), free) for layers in passes):
        batch_size //= 2
    return Plan(batch_size, tuple(passes))


def _fits(needed: Bytes, free: Bytes) -> bool:
    return all(free[device] >= n for device, n in needed.items())


def _too_little(needed: Bytes, free: Bytes) -> str:
    device, n = max(needed.items(), key=lambda item: item[1] - free[item[0]])
    where, found = f"scoring: memory of {device}", f"{free[device] / 1e6:,.0f} MB free"
    return explain(where, found, f"{n / 1e6:,.0f} MB for one decoder block and one sample", REMEDY)


def free_bytes(device: torch.device, limit: int | None = None) -> int:
    """Memory that this process may still take on a device.

    Args:
        device: a GPU, or the CPU.
        limit: most bytes of the host that the process may hold in all, a job's request; None: what there is.
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
    """Bytes that this process holds, as Linux counts them; elsewhere its resident set alone."""
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
    """What the limits of this process' control groups leave (Linux, versions 1 and 2), bytes."""
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
    """Bytes of files in a control group's memory, given back before it counts as full."""
    values = dict(line.split() for line in _text(group / "memory.stat").splitlines())
    return sum(int(values.get(key, 0)) for key in ("active_file", "inactive_file"))


def peak_bytes(call: Callable[[], object], devices: Sequence[torch.device]) -> Bytes:
    """The most that the tensors made by a call take at once, on each device, beside those there were before."""
    gpus = [device for device in devices if device.type == "cuda"]
    before = {gpu: torch.cuda.memory_allocated(gpu) for gpu in gpus}
    for gpu in gpus:
        torch.cuda.reset_peak_memory_stats(gpu)
    with _Tensors() as made:
        call()
    on_gpus = {gpu: torch.cuda.max_memory_allocated(gpu) - before[gpu] for gpu in gpus}
    return Counter(on_gpus | ({CPU: made.peak} if CPU in devices else {}))


class _Tensors(TorchDispatchMode):
    """Follows the storages of CPU tensors from birth to death; ``peak`` is the most bytes alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self._known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._known.update(_storages((args, kwargs)))
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage not in self._known:
                self._known.add(storage)
                self._count(storage.nbytes())
                weakref.finalize(storage, self._count, -storage.nbytes())
        return made

    def _count(self, n: int) -> None:
        self.alive += n
        self.peak = max(self.peak, self.alive)


def _storages(tree: object) -> list[torch.UntypedStorage]:
    tensors = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))
    return [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]


def ran_out(error: BaseException) -> bool:
    """Whether an error says that a device, or the host, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def halving(size: int, attempt: Callable[[int], Result]) -> tuple[Result, int]:
    """``attempt(size)``, from its beginning again with half the size as often as memory runs out; and that size.

    Raises:
        OutOfMemory: memory runs out with one sample at a time.
    """
    while True:
        try:
            return attempt(size), size
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
        # Out of the handler, which keeps what the attempt has made alive.
        size = _halved(size)


def in_batches(
    items: Sequence[Item], size: int, run: Callable[[Sequence[Item]], Result]
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Groups of up to ``size`` items and ``run(group)``; where memory runs out, the rest goes in half the size.

    Raises:
        OutOfMemory: memory runs out with one item.
    """
    start = 0
    while start < len(items):
        result, size = halving(size, lambda n, at=start: (items[at : at + n], run(items[at : at + n])))
        yield result
        start += size


def _halved(size: int) -> int:
    if size == 1:
        raise OutOfMemory(
            explain("a pass through the backbone", "no memory left for one sample", hint=REMEDY)
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    print(f"out of memory with batches of {size}: going on with {size // 2}")
    return size // 2
