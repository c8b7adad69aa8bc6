"""Class moments: how strongly neurons fire for the prompts of a name, and for ordinary prompts.

    count, sum, sum of squares     of one number per prompt and input of a linear layer, for each of the two classes

An input of `down` is a feed-forward neuron, h_k = (act(gate) * up)_k: row k of up and gate, column k of down. An input
of `o` is one dimension of a head's output. Only the prompts are read, without responses. A prompt's number is the value
at its last token, or the mean or the maximum over its tokens (`vectors`).

Sums are float64. In float32, the variance is lost where a neuron's mean is many times its standard deviation. Per input
they are six numbers: 22 MB for the neurons of an 8B Llama.
"""

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone, ScoredLinear
from safety_regions.model.batches import Batch, Sample
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.passes import watch_inputs
from safety_regions.scoring.samples import Samples
from safety_regions.units.addresses import address, parse_address
from safety_regions.units.granularity import FEED_FORWARD

TOKENS = ("last", "mean", "max")
NEURONS = ("down",)
"""The projection whose inputs are the feed-forward neurons."""


def class_moments(
    backbone: Backbone, samples: Samples, tokens: str = "last", projections: Collection[str] = NEURONS
) -> Evidence:
    """Count, sum and sum of squares in both classes: address of a projection -> (2, 3, in), float64, on the CPU.

    The first class is the scored prompts (``samples.identification``), the second the ordinary ones (``contrast``).
    Counts, the first of the three, are the same for all inputs. The moments of two groups of prompts add.

    Args:
        tokens: one of `TOKENS`.
        projections: down or o, or both.

    Raises:
        StudyError: there are fewer than 2 ordinary prompts, or a value is not finite.
    """
    check_contrast(samples)
    classes = [
        watch_inputs(
            backbone, of_prompts(samples, given), lambda linears: Moments(linears, tokens, projections)
        )
        for given in (samples.identification, samples.contrast)
    ]
    return {where: torch.stack([found[where] for found in classes]) for where in classes[0]}


def check_contrast(samples: Samples) -> None:
    """Raise a `StudyError` if there are too few ordinary prompts for a variance."""
    if len(samples.contrast) < 2:
        found = f"{len(samples.contrast)} ordinary prompts"
        raise StudyError(
            explain(
                "scoring: contrast", found, "2 or more", "a dataset under `datasets: utility` in the config"
            )
        )


def of_prompts(samples: Samples, given: Sequence[Sample]) -> Samples:
    """The same limits, and some samples without their responses, to be run as the identification samples."""
    return samples._replace(identification=[sample.prompt for sample in given])


class Moments:
    """Count, sum and sum of squares of the prompts' numbers, for the inputs of the given projections."""

    def __init__(self, linears: Sequence[ScoredLinear], tokens: str, projections: Collection[str]) -> None:
        self.tokens = tokens
        self.sums = {
            where: torch.zeros(
                3, linear.module.in_features, dtype=torch.float64, device=linear.module.weight.device
            )
            for linear, where in watched(linears, projections)
        }

    def add(self, linear: ScoredLinear, x: Tensor, batch: Batch) -> None:
        sums = self.sums.get(linear.slices[0].address)
        if sums is not None:
            found = vectors(x, batch, self.tokens)
            sums += torch.stack([torch.full_like(found[0], len(found)), found.sum(0), found.square().sum(0)])

    def evidence(self, seen: int) -> Evidence:
        return {where: sums.cpu() for where, sums in self.sums.items()}


def watched(linears: Sequence[ScoredLinear], projections: Collection[str]) -> list[tuple[ScoredLinear, str]]:
    """The linear layers that store one of the projections (not fused with others), each with its address."""
    return [
        (linear, linear.slices[0].address)
        for linear in linears
        if parse_address(linear.slices[0].address).projection in projections
    ]


def feed_forward(where: str, scores: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Both sides of the neurons of a layer, in flat order: up and down, which have the same scores.

    Args:
        where: address of the layer's down, as in `class_moments`.
        scores: of its neurons.
    """
    for projection in FEED_FORWARD:
        yield address(parse_address(where).layer, projection), scores


def evidence_of(evidence: Evidence, where: str) -> Tensor:
    """The evidence of the neurons of which an address, up or down, is one side."""
    (projection,) = NEURONS
    return evidence[address(parse_address(where).layer, projection)]


def vectors(x: Tensor, batch: Batch, tokens: str) -> Tensor:
    """One number per prompt and input: (batch, in), float64, from x (batch, tokens, in). Padding does not count."""
    if tokens == "last":
        return batch.last(x).double()
    real = batch.attention_mask.bool()[:, :, None]
    if tokens == "mean":
        return torch.where(real, x, 0).sum(1, dtype=torch.float64) / real.sum(1)
    return x.masked_fill(~real, -torch.inf).amax(1).double()
