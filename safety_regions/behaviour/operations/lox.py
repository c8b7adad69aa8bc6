"""LoX: the strongest directions of what alignment changed are amplified.

    w + dose * P_k (w_a - w_b),  P_k = U_k U_k^T

where U_k holds the k left singular vectors of w_a - w_b with the largest singular values. Source: Perin et al. 2025,
arXiv 2506.15606 (VITA-Group/LoX), with k = 6 and a coefficient of 1.25.

The paper applies it to the aligned model before fine-tuning. Here it changes the aligned model, or a fine-tuned one
afterwards; it does not change the aligned model before it is fine-tuned. U_k comes from the whole matrix, also if only
a region is changed.
"""

import torch
from torch import Tensor

from safety_regions.behaviour.operations import Matrix

CARD = {
    "title": "extrapolated along alignment",
    "doses": [1.25],
    "neutral": 0.0,
    "base": True,
    "acts": ["aligned", "fine-tuned"],
}
RANK = 6


def changed(matrix: Matrix, dose: float) -> Tensor:
    """w + dose * P_k (w_a - w_b) inside the region."""
    return torch.where(matrix.inside, matrix.weight + dose * strongest(matrix), matrix.weight)


def strongest(matrix: Matrix) -> Tensor:
    """P_k (w_a - w_b), float32 (out, in)."""
    change = matrix.aligned - matrix.base
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    return (u[:, :RANK] * s[:RANK]) @ v[:RANK]
