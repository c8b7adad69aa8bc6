"""Memory of a scoring pass: what is free, what the pass will take, and what gives way where that is too much.

    layers' sums + max(batch * one sample's pass + one gradient, one matrix's scores)  <=  what is free, on each device

What one sample takes is bounded from above by the backbone's sizes; the sums are known. The batch gives way first (a
smaller one costs little), then the layers that a pass serves (each further pass costs a forward and part of a backward
pass). A batch size changes no result beyond rounding, and the layers that a pass serves not even that. What runs out
all the same is tried again in halves (`safety_regions.model.halving`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.model.halving import REMEDY

Bytes = Counter[torch.device]
"""Bytes on each device: ``+`` adds, ``|`` takes the larger."""

# Bytes per weight of the largest matrix while its scores are formed and their best kept: measured.
KEEPING = 40
# What allocators lose to fragments and libraries take for themselves, as a factor on what a sample's pass takes.
SLACK = 1.25
CPU = torch.device("cpu")
# A control group's limit and use, by the controllers that /proc/self/cgroup names: version 2, version 1.
GROUP_FILES = {
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}


class Plan(NamedTuple):
    """Samples per batch, and for each pass the decoder blocks that it serves; one pass serves all where it fits."""

    batch_size: int
    passes: tuple[range, ...]


class Needs(NamedTuple):
    """What passes take.

    Attributes:
        sums: for each decoder block, what is summed over samples.
        blocks: for each decoder block, what it keeps of one sample for the way back.
        passing: what else one sample takes: logits at the end, or what fills a block and is gone with the next.
        gradient: one matrix's gradient.
        scoring: one matrix's scores and the search for its best, when the passes are over.
    """

    sums: Sequence[Bytes]
    blocks: Sequence[Bytes]
    passing: Bytes
    gradient: Bytes
    scoring: Bytes

    def of(self, layers: range, batch_size: int) -> Bytes:
        """Bytes of a pass that serves ``layers``, below which nothing is kept, in batches of ``batch_size``."""
        sample = sum(self.blocks[layers.start :], self.passing)
        batch = Counter({device: int(SLACK * batch_size * n) for device, n in sample.items()})
        return sum((self.sums[layer] for layer in layers), (batch + self.gradient) | self.scoring)


def needs_of(backbone: Backbone, longest: Sample, bytes_per_weight: int, gradients: bool) -> Needs:
    """What passes take whose samples are no longer than ``longest``: a bound from above, by the backbone's sizes.

    For the way back a block keeps, of each token, at most 10 vectors of the hidden size in float32 (norms, and what
    goes round attention and MLP), 6 of all heads and 5 of the intermediate size in the model's dtype, and, where
    attention is eager, 2 of its rows in each.

    Args:
        bytes_per_weight: what is summed over samples for each weight.
        gradients: whether there is a way back.
    """
    config, width = backbone.config, backbone.model.dtype.itemsize
    tokens, heads = len(longest.ids), config.num_attention_heads
    per_token = 10 * 4 * config.hidden_size + 6 * width * heads * backbone.head_dim
    per_token += 5 * width * config.intermediate_size
    if config._attn_implementation == "eager":
        per_token += 2 * (4 + width) * heads * tokens
    sizes = [_by_device(backbone, layer) for layer in range(len(backbone.blocks))]
    blocks = [Counter(dict.fromkeys(size, tokens * per_token)) for size in sizes]
    largest = reduce(or_, (Counter({w.device: w.numel()}) for _, w in backbone.weights()))
    head = backbone.model.get_output_embeddings().weight
    logits = Counter({head.device: (tokens - longest.prompt_length) * (3 * 4 + width) * len(head)})
    return Needs(
        sums=[_times(bytes_per_weight, size) for size in sizes],
        blocks=blocks if gradients else [Counter() for _ in blocks],
        passing=logits if gradients else reduce(or_, blocks),
        gradient=_times(width if bytes_per_weight else 0, largest),
        scoring=_times(KEEPING, largest),
    )


def _by_device(backbone: Backbone, layer: int) -> Bytes:
    """Weights of a decoder block, a number for each device."""
    weights = (linear.module.weight for linear in backbone.linears if linear.layer == layer)
    return sum((Counter({weight.device: weight.numel()}) for weight in weights), Counter())


def _times(factor: int, bytes_: Bytes) -> Bytes:
    return +Counter({device: factor * n for device, n in bytes_.items()})


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
