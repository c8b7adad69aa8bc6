"""Move the evidence of finished layers off the GPU or out of memory: to the host, or to a temporary file."""

from torch import Tensor

from safety_regions.model.free_memory import CPU, free_bytes
from safety_regions.model.scratch import in_file
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
    return in_file(values.cpu(), samples.scratch)
