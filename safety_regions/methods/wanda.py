"""Wanda: the magnitude of a weight times the magnitude of its input.

    score_ij = |W_ij| * sqrt( mean over response positions of x_j^2 )

Positions are those whose *input* token belongs to the response: the last response token counts, the last
prompt token (which predicts the first response token) does not. The released code divides by the number of
positions in one place (``prune_wanda_v2``) and by the number of samples in another; this constant factor does not
change the ranking.

With the option ``difference``, |W_ij| is replaced by |W_ij - B_ij|, where B are the weights of the base checkpoint; the
inputs are still those of the aligned model (``--use_diff`` of the released code of Wei et al.).

Source: Sun et al. 2023, arXiv 2306.11695 (locuslab/wanda @8e8fc87, lib/layerwrapper.py 22-35), restricted to
the response by Wei et al. 2024, arXiv 2402.05162 (boyiwei/alignment-attribution-code @0b0e707,
lib/layerwrapper.py 28-51, lib/prune.py 255-470). One forward pass; only second moments are stored.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from safety_regions.model.backbone import Backbone, ScoredLinear
from safety_regions.model.batches import Batch, Sample
from safety_regions.scoring.evidence import Changed, Evidence, merge_means
from safety_regions.scoring.passes import watch_inputs
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "Wanda",
    "granularity": "weight",
    "streams": True,
    "base": "difference",
    "selections": ["row-0.05"],
    "options": {
        "positions": {
            "enum": ["response", "predicting", "all"],
            "default": "response",
            "description": "input positions to average over: response tokens, positions that predict them, or all",
        },
        "difference": {
            "type": "boolean",
            "default": False,
            "description": "weights minus those of the backbone's base, in place of the weights",
        },
    },
    "presets": {"wei_code": {"options": {}, "selections": ["row-0.05"]}},
}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Root mean square of each input channel over the counted positions: address -> (in,)."""
    return watch_inputs(backbone, samples, lambda linears: Moments(linears, options["positions"]))


class Moments:
    """Sum over the counted positions of the squared inputs of the given layers."""

    def __init__(self, linears: Sequence[ScoredLinear], positions: str) -> None:
        self.linears, self.positions = linears, positions
        self.sums = {
            id(linear.module): torch.zeros(linear.module.in_features, device=linear.module.weight.device)
            for linear in linears
        }
        self.counts = dict.fromkeys(self.sums, 0)

    def add(self, linear: ScoredLinear, x: Tensor, batch: Batch) -> None:
        counted = x[_counted(batch, self.positions)].float()
        self.sums[id(linear.module)] += counted.square().sum(0)
        self.counts[id(linear.module)] += len(counted)

    def evidence(self, seen: int) -> Evidence:
        return {
            address: (self.sums[id(linear.module)] / self.counts[id(linear.module)]).sqrt()
            for linear in self.linears
            for address, _, _ in linear.slices
        }


def _counted(batch: Batch, positions: str) -> Tensor:
    masks = {
        "response": batch.response_mask,
        "predicting": batch.target_mask,
        "all": batch.attention_mask.bool(),
    }
    return masks[positions]


def merge(
    evidence: Evidence, more: Evidence, samples: tuple[Sequence[Sample], Sequence[Sample]], options: dict
) -> Evidence:
    """Root mean square over the counted positions of both groups of samples."""
    n, m = (sum(_n_counted(sample, options["positions"]) for sample in group) for group in samples)
    squares = (Changed(found, lambda _, values: values.square()) for found in (evidence, more))
    return Changed(merge_means(*squares, n, m), lambda _, values: values.sqrt())


def _n_counted(sample: Sample, positions: str) -> int:
    return len(sample.ids) - (0 if positions == "all" else sample.prompt_length)


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """|W|, or |W - B|, times the evidence of the input channel, float32, (out, in) per address."""
    weights = backbone.weights()
    if options["difference"]:
        weights = ((where, weight.float() - base.float()) for where, weight, base in backbone.weight_pairs())
    for address, weight in weights:
        yield address, weight.float().abs() * evidence[address]
