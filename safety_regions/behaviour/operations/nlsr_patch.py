"""NLSR's patch: after fine-tuning, the region gets its aligned weights back in some of the matrices.

For each matrix, similarity = cos(w - w_b, w_a - w_b) inside the region. A matrix is patched with probability

    dose - 0.2 + 0.4 * rank,  cut to 0 and 1

where rank is 0 for the most and 1 for the least similar matrix, so that the dose is the mean share of patched matrices.
Source: Yi et al. 2024, arXiv 2412.12497 (xinykou/NLSR, ``src/safe_lora/transfer_inner.py``; dose 0.5, 0.2 in
``scripts/expo-adaptive_mask_replace-realign.sh``).

There weights are the factors of LoRA adapters on the base model, and the patch is an amplified reference adapter; here
they are the changes of the weights, and the patch is the aligned model. Quirk, not kept: the released code patches the
*more* similar matrices with the higher probability, against its own comment and the paper.
"""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from safety_regions.behaviour.operations import Matrix

CARD = {
    "title": "patched where it changed most",
    "doses": [0.5],
    "least": 0.0,
    "base": True,
    "acts": ["fine-tuned"],
}
SPREAD = 0.2


def similarity(matrix: Matrix) -> float:
    """Cosine of what fine-tuning and alignment, and alignment alone, changed in the region."""
    one, other = matrix.weight - matrix.base, matrix.aligned - matrix.base
    return float(cosine_similarity(one[matrix.inside], other[matrix.inside], dim=0))


def changed(matrix: Matrix, dose: float) -> Tensor:
    """The aligned weights inside the region of a patched matrix."""
    likely = dose - SPREAD + 2 * SPREAD * matrix.rank
    drawn = float(torch.rand((), generator=matrix.generator, dtype=torch.float64))
    return torch.where(matrix.inside & (drawn < likely), matrix.aligned, matrix.weight)
