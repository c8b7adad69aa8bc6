"""Base: the weights of the region go back towards those before alignment.

    w_a + dose * (w_b - w_a)

A dose of 1 resets them to the base model. It asks for *necessity*: is what alignment did in the region needed for
refusals? Unlike damage, it undoes alignment and nothing else.
"""

import torch
from torch import Tensor

from safety_regions.behaviour.operations import Matrix

CARD = {"title": "reset to the base model", "doses": [1.0], "neutral": 0.0, "base": True, "linear": True}


def changed(matrix: Matrix, dose: float) -> Tensor:
    """Between aligned (dose 0) and base (dose 1) inside the region; exact at both."""
    return torch.where(matrix.inside, torch.lerp(matrix.weight, matrix.base, dose), matrix.weight)
