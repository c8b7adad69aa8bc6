"""SafeLoRA: what fine-tuning changed is projected on what alignment changed, where the two differ.

    C = V V^T / |V|,  V = w_a - w_b,  D = w - w_a
    w_a + C D  if cos(C D, D) <= dose, else w

for each matrix; |V| is the Frobenius norm, and the dose is the threshold on the cosine. Source: Hsu et al. 2024, arXiv
2405.16833 (IBM/SafeLoRA), section 3; there D is the product of the factors of a LoRA adapter, here the change of the
weights themselves.

Quirk, kept: C is no projection. It is divided by the norm and not by its square, so C D is as much smaller or larger as
alignment changed the matrix little or much. The whole of D decides, also if only a region is changed.
"""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from safety_regions.behaviour.operations import Matrix

CARD = {
    "title": "fine-tuning projected on alignment",
    "doses": [0.35],
    "base": True,
    "acts": ["fine-tuned"],
}


def changed(matrix: Matrix, dose: float) -> Tensor:
    """w_a + C D inside the region if the cosine is at most the dose, else w."""
    alignment, tuning = matrix.aligned - matrix.base, matrix.weight - matrix.aligned
    norm = alignment.norm()
    if norm == 0:
        return matrix.weight
    projected = alignment @ (alignment.T @ tuning) / norm
    if cosine_similarity(projected.flatten(), tuning.flatten(), dim=0) > dose:
        return matrix.weight
    return torch.where(matrix.inside, matrix.aligned + projected, matrix.weight)
