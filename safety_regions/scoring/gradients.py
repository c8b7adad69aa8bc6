"""Sums of gradients over samples, for methods that score single weights by the gradient of the response's loss.

A sample's gradient of a weight matrix is delta^T x, from what `watch_gradients` gives. The mean gradient keeps its sign
and is linear in the samples, so that one product of matrices sums a whole batch. It never stores a sample's gradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from safety_regions.model.backbone import Backbone, ScoredLinear
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.passes import watch_gradients
from safety_regions.scoring.samples import Samples


def mean_gradients(backbone: Backbone, samples: Samples, loss: str) -> Evidence:
    """Mean over samples of the signed gradient of each sample's own loss: address -> (out, in), float32.

    Args:
        loss: see `watch_gradients`.

    Raises:
        StudyError: as `watch_gradients`.
    """
    return watch_gradients(backbone, samples, SignedGradients, loss, torch.float32.itemsize)


class GradientSums:
    """Sum over samples of a value per weight of the given layers; a subclass says in ``add`` which value."""

    def __init__(self, linears: Sequence[ScoredLinear], dtype: torch.dtype = torch.float32) -> None:
        self.linears = linears
        self.sums = {
            id(linear.module): torch.zeros_like(linear.module.weight, dtype=dtype) for linear in linears
        }

    def evidence(self, seen: int) -> Evidence:
        """The mean over ``seen`` samples: address -> (out, in)."""
        return {
            address: self.sums[id(linear.module)][start:stop].div_(seen)
            for linear in self.linears
            for address, start, stop in linear.slices
        }


class SignedGradients(GradientSums):
    """Sum over samples of the gradient of each weight, with its sign."""

    def add(self, linear: ScoredLinear, x: Tensor, delta: Tensor) -> None:
        self.sums[id(linear.module)].add_(torch.mm(delta.flatten(0, 1).T, x.flatten(0, 1)))
