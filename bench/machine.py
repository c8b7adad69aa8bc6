"""What the figures were taken on: hardware and versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "transformers", "numpy", "snakemake")


def hardware() -> str:
    """Processor, cores in use, memory and GPUs, in one line."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = f"{len(os.sched_getaffinity(0))} cores ({torch.get_num_threads()} threads of torch)"
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    return ", ".join([_processor(), cores, f"{memory:.0f} GiB", *(gpus or ["no GPU"]), load])


def versions() -> str:
    """Python and what the figures depend on, in one line."""
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
