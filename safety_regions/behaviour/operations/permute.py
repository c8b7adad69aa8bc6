"""Permute: the weights of the region are permuted at random within each row.

Damage that keeps the distribution of the weights of every output.
"""

import torch
from torch import Tensor

from safety_regions.behaviour.operations import Matrix

CARD = {"title": "permuted within rows", "doses": [1.0]}


def changed(matrix: Matrix, dose: float) -> Tensor:
    """The same weights inside the region of each row, in random order."""
    found = matrix.weight.clone()
    row = matrix.inside.nonzero()[:, 0]
    drawn = torch.rand(len(row), generator=matrix.generator, dtype=torch.float64).to(row.device)
    order = torch.argsort(row + drawn)  # by row, then at random: the draws are below 1
    found[matrix.inside] = matrix.weight[matrix.inside][order]
    return found
