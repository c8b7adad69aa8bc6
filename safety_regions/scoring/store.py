"""Move the evidence of finished layers off the GPU or out of memory: to the host, or to a temporary file."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.formats.files import FULL
from safety_regions.scoring.memory import CPU, free_bytes
from safety_regions.scoring.samples import Samples

# Fraction of the host's free memory that evidence may use; the rest is for computing scores.
SHARE = 0.5


def stored(values: Tensor, samples: Samples) -> Tensor:
    """Move a tensor from the GPU to host memory if it fits there; otherwise, or if it is on the host, to a file.

    Raises:
        StudyError: the disk is full.
    """
    size = values.numel() * values.element_size()
    if values.is_cuda and size < SHARE * free_bytes(CPU, samples.memory):
        return values.cpu()
    return _in_file(values.cpu(), samples.scratch)


def _in_file(values: Tensor, folder: Path | None) -> Tensor:
    """A memory-mapped tensor backed by an unlinked temporary file, which disappears with the tensor.

    The file is written before it is mapped: writing to mapped memory on a full disk would kill the process.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(values.contiguous().flatten().view(torch.uint8).numpy().data)
            file.flush()
            kept = torch.from_file(file.name, shared=True, size=values.numel(), dtype=values.dtype)
    except OSError as error:
        if error.errno not in FULL:
            raise
        hint = "free some space, or request more memory: evidence that does not fit in memory is stored in a file"
        raise StudyError(explain("scoring", "no space left on the disk", hint=hint)) from None
    return kept.view(values.shape)
