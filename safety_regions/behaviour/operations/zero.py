"""Zero: the weights of the region become 0, the usual ablation of the field.

Source: Wei et al. 2024, arXiv 2402.05162, section 3 (boyiwei/alignment-attribution-code). It damages a model far more
than it undoes alignment: read it beside the loss of utility, and beside controls of the same weight magnitudes.
"""

import torch
from torch import Tensor

from safety_regions.behaviour.operations import Matrix

CARD = {"title": "set to zero", "doses": [1.0], "linear": True}


def changed(matrix: Matrix, dose: float) -> Tensor:
    """0 inside the region."""
    return torch.where(matrix.inside, 0.0, matrix.weight)
