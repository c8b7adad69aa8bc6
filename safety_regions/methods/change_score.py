"""Change score: how much the activation of a feed-forward neuron differs between the aligned model and its base.

    score_k = sqrt( mean over the counted positions of (a_k - b_k)^2 )

a_k is the input k of down in the aligned model, b_k that in its base, and both models read the same tokens: prompt and
response. Neuron k is row k of up and column k of down, and both get its score. Counted are the positions that predict
a token of the response, as in the paper; the released code counts the response's tokens themselves (option
``positions``, preset ``chen_code``). With the option ``relative``, the score is divided by the root mean square of a_k
at these positions, because large activations have large differences. A neuron that did not change at all is in no
region (option ``positive``): below the first layer that training changed, all scores are 0 and tied.

The responses are those of the aligned model (or of whatever the config says). The paper generates with the model before
alignment, and finds that it hardly matters which. There both models share all weights but a learned scale of each
neuron; with full training, rows of up and gate change too. The pair of a vendor differs in all of instruction tuning:
the refinement by a utility set asks which neurons changed for harmful prompts only. The base reads the chat template of
the aligned model, whose special tokens it may never have seen; ``template: raw`` in the card avoids that.

Shuffled evidence: neurons are permuted within their layer, both sides of a neuron together.

Source: Chen et al. 2024, arXiv 2406.14144, equation of the change score; THU-KEG/SafetyNeuron @46a5311,
change_scores.py, activation_processor.py. That code leaves out all names with "31", the last layer of a model of 32
layers only; here all layers count. It keeps all activations in memory; here sums of squares, in float64, suffice. The
base reads all samples first, and its activations go through a file; the two models need not fit in memory together.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from safety_regions.model.backbone import Backbone, ScoredLinear
from safety_regions.model.batches import Batch, Sample
from safety_regions.scoring.evidence import Evidence, merge_means, shuffle_units
from safety_regions.scoring.moments import feed_forward
from safety_regions.scoring.passes import watch_pairs
from safety_regions.scoring.samples import Samples
from safety_regions.units.addresses import address

CARD = {
    "title": "Change score",
    "granularity": "neuron",
    "projections": ["up", "down"],
    "streams": True,
    "base": True,
    "selections": ["global-0.05"],
    "options": {
        "positions": {
            "enum": ["predicting", "response"],
            "default": "predicting",
            "description": "counted positions: those that predict the response's tokens, or those tokens themselves",
        },
        "relative": {
            "type": "boolean",
            "default": False,
            "description": "divide by the root mean square of the activation in the aligned model",
        },
        "positive": {
            "type": "boolean",
            "default": True,
            "description": "only neurons that changed enter a region",
        },
    },
    "presets": {"chen_code": {"options": {"positions": "response"}, "selections": ["global-0.05"]}},
}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Mean square of the change and of the aligned model's activation: address of down -> (2, units), float64, CPU."""
    return watch_pairs(backbone, samples, lambda _: SquaredChanges(options["positions"]), "down")


class SquaredChanges:
    """Sums over the counted positions of (a - b)^2 and of a^2, for every layer."""

    def __init__(self, positions: str) -> None:
        self.positions = positions
        self.sums: dict[int, Tensor] = {}
        self.counts: dict[int, int] = {}

    def add(self, linear: ScoredLinear, x: Tensor, base: Tensor, batch: Batch) -> None:
        counted = batch.target_mask if self.positions == "predicting" else batch.response_mask
        aligned, before = x[counted].double(), base[counted].double()
        squares = torch.stack([(aligned - before).square().sum(0), aligned.square().sum(0)])
        self.sums[linear.layer] = self.sums.get(linear.layer, 0) + squares
        self.counts[linear.layer] = self.counts.get(linear.layer, 0) + len(aligned)

    def evidence(self, seen: int) -> Evidence:
        return {
            address(layer, "down"): (self.sums[layer] / self.counts[layer]).cpu()
            for layer in sorted(self.sums)
        }


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """The root of the mean squared change, or its ratio to the activation's, float32, (units,) per address."""
    for where, squares in evidence.items():
        change, activation = squares.sqrt()
        if options["relative"]:
            change = change / activation.clamp(min=torch.finfo(torch.float32).tiny ** 0.5)
        yield from feed_forward(where, change.float())


def shuffle(evidence: Evidence, seed: int) -> Evidence:
    """Permute units within their layer; up and down read the same evidence, so both sides move together."""
    return shuffle_units(evidence, seed)


def merge(
    evidence: Evidence, more: Evidence, samples: tuple[Sequence[Sample], Sequence[Sample]], options: dict
) -> Evidence:
    """The mean squares over the counted positions of both groups of samples; each response token counts once."""
    n, m = (sum(len(sample.ids) - sample.prompt_length for sample in group) for group in samples)
    return merge_means(evidence, more, n, m)
