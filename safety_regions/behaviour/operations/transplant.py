"""Transplant: the base model, with the weights of the region as alignment made them.

    inside: w_b + dose * (w_a - w_b),  outside: w_b

It asks for *sufficiency*: is what alignment did in the region enough for refusals? The model is the base model outside
the region, so it is compared with the base model and not with the aligned one.
"""

import torch
from torch import Tensor

from safety_regions.behaviour.operations import Matrix

CARD = {
    "title": "transplanted into the base model",
    "doses": [1.0],
    "base": True,
    "into_base": True,
    "linear": True,
}


def changed(matrix: Matrix, dose: float) -> Tensor:
    """Between base (dose 0) and aligned (dose 1) inside the region, exact at both; the base outside."""
    return torch.where(matrix.inside, torch.lerp(matrix.base, matrix.weight, dose), matrix.base)
