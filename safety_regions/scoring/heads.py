"""Scores of attention heads, from the importance of each head for each prompt.

Evidence and importances have one tensor for each layer, at `layers.3.heads`; their last axis is the query heads.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from safety_regions.scoring.ranks import worst_rank_scores
from safety_regions.units.addresses import HEADS, address

PROMPTS = ("mean", "worst")


def heads_at(layer: int) -> str:
    """The address of the heads of a layer."""
    return address(layer, HEADS)


def head_scores(importances: Mapping[str, Tensor], prompts: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the scores of each layer's heads, float32, (heads,).

    Args:
        importances: address -> (prompts, heads), in flat order.
        prompts: one of `PROMPTS`. "mean": over the prompts. "worst": (n + 1 - worst rank) / n, where each prompt ranks
            all n heads of the model, so the best k hold every head that is among the best k for each prompt.
    """
    if prompts == "mean":
        yield from ((where, values.mean(0).float()) for where, values in importances.items())
        return
    scores = worst_rank_scores(torch.cat(list(importances.values()), dim=1))
    sizes = [values.shape[1] for values in importances.values()]
    yield from zip(importances, scores.split(sizes), strict=True)


def head_details(importances: Tensor) -> dict[str, Tensor]:
    """``importances``: those of each head for each prompt, descending, float32 (heads, prompts)."""
    return {"importances": importances.T.sort(dim=1, descending=True).values.float()}
