"""Rewind: after fine-tuning, the weights of the region go back to those of the aligned model.

    w + dose * (w_a - w)

Source: Wei et al. 2024, arXiv 2402.05162 (boyiwei/alignment-attribution-code, ``rewind_ft_model.py``), which calls it
freezing. The other weights cannot compensate for it, because they were trained without it.
"""

import torch
from torch import Tensor

from safety_regions.behaviour.operations import Matrix

CARD = {"title": "set back to the aligned model", "doses": [1.0], "neutral": 0.0, "acts": ["fine-tuned"]}


def changed(matrix: Matrix, dose: float) -> Tensor:
    """Between fine-tuned (dose 0) and aligned (dose 1) inside the region; exact at both."""
    return torch.where(matrix.inside, torch.lerp(matrix.weight, matrix.aligned, dose), matrix.weight)
