"""Mean angles between all pairs of vectors, layer by layer: how far harmful prompts are from ordinary ones.

Harmful prompts are called ``malicious`` in the code, as in the paper. The released code draws 500 random pairs,
with three seeds; here every pair of different prompts counts once.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from safety_regions.scoring.states import PromptStates

CHUNK = 1024  # rows of the pair matrix at a time


class Angles(NamedTuple):
    """Mean angles, degrees; NaN where there is no pair."""

    normal_normal: float
    normal_malicious: float
    malicious_malicious: float


def mean_angles(normal: PromptStates, malicious: PromptStates, average: str) -> list[Angles]:
    """The mean angle of each kind of pair after every block.

    Args:
        normal: ordinary prompts.
        malicious: the prompts of the dataset that is scored. A prompt on both sides is not paired with itself.
        average: "angle" (the paper: mean of the angles) or "cosine" (the released plots: angle of the mean cosine).
    """
    sides = {"n": normal, "m": malicious}
    differ = {a + b: _differ(sides[a].prompt_ids, sides[b].prompt_ids) for a, b in ("nn", "nm", "mm")}

    def of_layer(layer: int) -> Iterator[float]:
        for (a, b), counted in differ.items():
            yield mean_angle(sides[a].vectors[layer], sides[b].vectors[layer], counted, average)

    return [Angles(*of_layer(layer)) for layer in range(len(normal.vectors))]


def _differ(a: Sequence[str], b: Sequence[str]) -> Tensor:
    """(n, m) booleans: which pairs consist of two different prompts."""
    return torch.from_numpy(np.asarray(a)[:, None] != np.asarray(b)[None, :])


def mean_angle(a: Tensor, b: Tensor, counted: Tensor, average: str) -> float:
    """Mean angle in degrees between rows of ``a`` (n, d) and rows of ``b`` (m, d).

    Computed in float64: exact to about 1e-6 degrees (the arc cosine of nearly parallel vectors).

    Args:
        counted: (n, m) booleans, the pairs that count; the result is NaN if there are none.
        average: "angle" or "cosine", see `mean_angles`.
    """
    u, v = _unit(a), _unit(b)
    total = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(u), CHUNK):
        cosines = (u[start : start + CHUNK] @ v.T).clamp(-1, 1)
        values = cosines if average == "cosine" else cosines.arccos()
        total += values[counted[start : start + CHUNK]].sum()
    n = int(counted.sum())
    mean = float(total) / n if n else math.nan
    return math.degrees(math.acos(mean) if average == "cosine" and n else mean)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.double(), dim=1)
