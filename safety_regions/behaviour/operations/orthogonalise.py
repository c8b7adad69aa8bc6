"""Orthogonalise: a matrix that writes into the residual stream loses what it writes along a direction.

    w - dose * u (u^T w)

u is the unit vector of the direction, and w a matrix (hidden, in) of `o` or `down`; other matrices do not write into
the stream and stay. Done to all of them and to the embedding (`safety_regions.behaviour.edit.without_direction`), it
equals taking the direction out of the stream after every sum, whatever the prompt. In Gemma 2, Gemma 3 and OLMo 2 it
does not: a norm lies between these matrices and the sum.

It changes the whole model at rank 1 and is no operation on a region: its effect is a comparison point for those of
regions. Source: Arditi et al. 2024, arXiv 2406.11717, section 4.1 (andyrdt/refusal_direction @9d852fa,
``pipeline/model_utils``). The released code changes tied embeddings in place, which changes the output head too.
"""

import torch
from torch import Tensor

from safety_regions.behaviour.operations import Matrix

CARD = {
    "title": "orthogonalised to the direction of refusals",
    "doses": [1.0],
    "neutral": 0.0,
    "acts": ["whole"],
}


def changed(matrix: Matrix, dose: float) -> Tensor:
    """w - dose u (u^T w) inside the region; the weights themselves where the matrix does not write into the stream."""
    unit = matrix.direction
    if unit is None:
        return matrix.weight
    written = torch.outer(unit, unit @ matrix.weight)
    return torch.where(matrix.inside, matrix.weight - dose * written, matrix.weight)
