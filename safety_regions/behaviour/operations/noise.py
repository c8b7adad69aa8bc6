"""Noise: the weights of the region get Gaussian noise of dose times the standard deviation of their matrix.

    w + dose * sd(W) * N(0, 1)

Damage that keeps the scale of weights. 2604.08297 (ESI) uses a dose of 0.38.
"""

import torch
from torch import Tensor

from safety_regions.behaviour.operations import Matrix

CARD = {"title": "noise added", "doses": [0.38], "neutral": 0.0, "least": 0.0}


def changed(matrix: Matrix, dose: float) -> Tensor:
    """Weights with noise inside the region; sd over all weights of the matrix."""
    found, scale = matrix.weight.clone(), dose * matrix.weight.std(correction=0)
    drawn = torch.randn(int(matrix.inside.sum()), generator=matrix.generator)
    found[matrix.inside] += scale * drawn.to(found.device)
    return found
