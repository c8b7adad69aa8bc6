"""Describe the machine of the figures: hardware, versions, and its rates of matrix products and memory copies."""

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from bench.measure import seconds

PACKAGES = ("torch", "transformers", "numpy", "snakemake")


def hardware() -> str:
    """Return processor, cores in use, memory, GPUs and load in one line."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = f"{len(os.sched_getaffinity(0))} cores ({torch.get_num_threads()} threads of torch)"
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    return ", ".join([_processor(), cores, f"{memory:.0f} GiB", *(gpus or ["no GPU"]), load])


def versions() -> str:
    """Return the versions of Python and of the packages that the figures depend on, in one line."""
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    )


def matmul_rate(side: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
    """Return operations per second (2 per multiplication) of a large matrix product: the best of five runs of ten."""
    factor = torch.randn(side, side, device=device).to(dtype)
    product = torch.empty_like(factor)
    return 10 * 2 * side**3 / _ten(lambda: torch.mm(factor, factor, out=product), device)


def copy_rate(n_bytes: int, device: str = "cpu") -> float:
    """Return bytes per second, read and written, of a copy too large for any cache: the best of five runs of ten."""
    source = torch.ones(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 10 * 2 * n_bytes / _ten(lambda: target.copy_(source), device)


def _ten(call: Callable[[], object], device: str) -> float:
    """Return the seconds of ten calls, the least of five runs."""

    def calls() -> None:
        for _ in range(10):
            call()
        if device != "cpu":
            torch.cuda.synchronize()

    return seconds(calls, 5)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
