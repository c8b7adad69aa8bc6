"""SNIP: how much removing a weight would change the loss of the response, to first order.

    score_ij = |W_ij| * mean over samples of |d loss / d W_ij|,   loss = -log p(response | prompt)

The absolute value is taken per sample, after the sum over tokens. The paper's loss is the sum over response tokens
(option ``loss: sum``); the released code, followed by default, takes their mean, so that a long response weighs no more
than a short one.
Per-sample gradients are computed inside the backward pass of each linear layer as delta^T x and added to one
float32 sum, so one forward and one backward pass cover all layers.

Source: Wei et al. 2024, arXiv 2402.05162, section 2.1; boyiwei/alignment-attribution-code @0b0e707,
lib/model_wrapper.py 241-318, 359-366. That code repeats the passes for each layer, accumulates in the weights'
dtype (option ``accumulator: native``) and does not divide by the number of samples (a constant factor).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from safety_regions.model.backbone import Backbone, ScoredLinear
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.gradients import GradientSums
from safety_regions.scoring.passes import watch_gradients
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "SNIP",
    "granularity": "weight",
    "per_weight": True,
    "selections": ["row-0.05"],
    "options": {
        "loss": {
            "enum": ["mean", "sum"],
            "default": "mean",
            "description": "reduction of a sample's loss over its response tokens",
        },
        "accumulator": {
            "enum": ["float32", "native"],
            "default": "float32",
            "description": "dtype of the sum over samples; native: that of the weights, as in the released code",
        },
    },
    "presets": {
        "wei_code": {"options": {"accumulator": "native"}, "selections": ["row-0.05", "matrix-0.05"]}
    },
}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Mean over samples of the absolute gradient: address -> (out, in)."""
    dtype = torch.float32 if options["accumulator"] == "float32" else backbone.model.dtype
    return watch_gradients(
        backbone, samples, lambda linears: AbsoluteGradients(linears, dtype), options["loss"], dtype.itemsize
    )


class AbsoluteGradients(GradientSums):
    """Sum over samples of the absolute gradient of each weight in the given layers."""

    def add(self, linear: ScoredLinear, x: Tensor, delta: Tensor) -> None:
        total = self.sums[id(linear.module)]
        gradient = torch.empty_like(linear.module.weight)
        for x_sample, delta_sample in zip(x, delta, strict=True):
            total.add_(torch.mm(delta_sample.T, x_sample, out=gradient).abs_())


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """|W| times the evidence, float32, (out, in) per address."""
    for address, weight in backbone.weights():
        yield (
            address,
            torch.mul(weight, evidence[address].to(weight.device)).abs_(),
        )  # the evidence has no sign
