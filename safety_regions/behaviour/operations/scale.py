"""Scale: the weights of the region are multiplied by the dose.

1 changes nothing, 0 is `zero`, more than 1 amplifies, less than 0 flips the sign. It is the operation with which
SafeLayer finds its range of layers (arXiv 2408.17003, section 3.3).
"""

import torch
from torch import Tensor

from safety_regions.behaviour.operations import Matrix

CARD = {"title": "scaled", "doses": [0.5, 1.5], "neutral": 1.0, "linear": True}


def changed(matrix: Matrix, dose: float) -> Tensor:
    """dose * w inside the region."""
    return torch.where(matrix.inside, dose * matrix.weight, matrix.weight)
