"""Ranks of units within their module for each prompt, and the score from a unit's worst rank."""

import torch
from torch import Tensor


def rank_units(importances: Tensor) -> Tensor:
    """Ranks within each prompt: int32, (prompts, units); 1 is the most important, ties go to the lower index."""
    order = importances.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(1, importances.shape[1] + 1, dtype=torch.int32).expand_as(order)
    return torch.empty_like(places).scatter_(1, order, places)


def worst_rank_scores(importances: Tensor) -> Tensor:
    """Score of each unit from its worst rank over the prompts: float32, (units,).

    (n + 1 - worst rank) / n for n units; 1 means rank 1 for every prompt. The top k of a module by this score
    include all units that are among the top k for every prompt.
    """
    n_units = importances.shape[1]
    return (n_units + 1 - rank_units(importances).amax(0)).float() / n_units
