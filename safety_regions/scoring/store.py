"""Evidence of finished layers out of the way: on the CPU, or in a nameless file on the disk."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.formats.files import FULL
from safety_regions.scoring.memory import CPU, free_bytes
from safety_regions.scoring.samples import Samples

# Of the host's free memory, what evidence may fill: the rest is for what scores are made of.
SHARE = 0.5


def stored(values: Tensor, samples: Samples) -> Tensor:
    """The values of a GPU in the host's memory while that has room; else, and those of the host, in a file.

    Raises:
        StudyError: the disk is full.
    """
    size = values.numel() * values.element_size()
    if values.is_cuda and size < SHARE * free_bytes(CPU, samples.memory):
        return values.cpu()
    return _in_file(values.cpu(), samples.scratch)


def _in_file(values: Tensor, folder: Path | None) -> Tensor:
    """A tensor whose memory is a file's, read back as it is asked for; the file goes with the last who reads it.

    It is written, not copied into mapped memory: there a full disk would kill the process.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(values.contiguous().flatten().view(torch.uint8).numpy().data)
            file.flush()
            kept = torch.from_file(file.name, shared=True, size=values.numel(), dtype=values.dtype)
    except OSError as error:
        if error.errno not in FULL:
            raise
        hint = "free some space, or more memory: sums that do not fit in it are kept in a file meanwhile"
        raise StudyError(explain("scoring", "no room on the disk", hint=hint)) from None
    return kept.view(values.shape)
