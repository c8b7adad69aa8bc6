"""Plan a scoring pass within the free memory: its batch size, and the decoder blocks that it covers.

    sums of the layers + max(batch * one sample + one gradient, one matrix's scores)  <=  free memory, on each device

The sizes of the backbone give an upper bound for one sample; the sums are known exactly. If the memory is too small,
the batch shrinks first (this costs little), then the number of layers per pass (each additional pass costs a forward
and part of a backward pass). The batch size changes results only by rounding, the layers per pass not at all. If a
pass still runs out of memory, it is repeated with half the batch size (`safety_regions.model.halving`).
"""

from collections import Counter
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import NamedTuple

import torch

from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.model.halving import REMEDY

Bytes = Counter[torch.device]
"""Bytes on each device: ``+`` adds, ``|`` takes the larger."""

# Bytes per weight of the largest matrix while its scores are computed and the top ones are selected (measured).
KEEPING = 40
# Factor on the memory of a sample, for fragmentation and for memory that libraries use.
SLACK = 1.25


class Plan(NamedTuple):
    """Samples per batch, and the decoder blocks that each pass covers; a single pass if all blocks fit."""

    batch_size: int
    passes: tuple[range, ...]


class Needs(NamedTuple):
    """Memory that passes need.

    Attributes:
        sums: for each decoder block, the sums over samples.
        blocks: for each decoder block, the activations of one sample saved for the backward pass.
        passing: other memory of one sample: the logits, or without a backward pass one block's transient activations.
        gradient: the gradient of one matrix.
        scoring: the scores of one matrix and the selection of the top ones, after the passes.
    """

    sums: Sequence[Bytes]
    blocks: Sequence[Bytes]
    passing: Bytes
    gradient: Bytes
    scoring: Bytes

    def of(self, layers: range, batch_size: int) -> Bytes:
        """Bytes of a pass that covers ``layers`` in batches of ``batch_size``; blocks below them save nothing."""
        sample = sum(self.blocks[layers.start :], self.passing)
        batch = Counter({device: int(SLACK * batch_size * n) for device, n in sample.items()})
        return sum((self.sums[layer] for layer in layers), (batch + self.gradient) | self.scoring)


def needs_of(backbone: Backbone, longest: Sample, bytes_per_weight: int, gradients: bool) -> Needs:
    """Upper bound, from the backbone's sizes, on the memory of passes over samples no longer than ``longest``.

    For the backward pass a block saves at most, for each token: 10 vectors of the hidden size in float32 (norms and
    residual stream), 6 of all heads and 5 of the intermediate size in the model's dtype and, with eager attention,
    2 rows of attention weights in each of these two dtypes.

    Args:
        bytes_per_weight: size of the sums over samples for each weight.
        gradients: whether there is a backward pass.
    """
    config, width = backbone.config, backbone.model.dtype.itemsize
    tokens, heads = len(longest.ids), config.num_attention_heads
    per_token = 10 * 4 * config.hidden_size + 6 * width * heads * backbone.head_dim
    per_token += 5 * width * config.intermediate_size
    if config._attn_implementation == "eager":
        per_token += 2 * (4 + width) * heads * tokens
    sizes = [_by_device(backbone, layer) for layer in range(len(backbone.blocks))]
    blocks = [Counter(dict.fromkeys(size, tokens * per_token)) for size in sizes]
    largest = reduce(or_, (Counter({w.device: w.numel()}) for _, w in backbone.weights()))
    head = backbone.model.get_output_embeddings().weight
    logits = Counter({head.device: (tokens - longest.prompt_length) * (3 * 4 + width) * len(head)})
    return Needs(
        sums=[_times(bytes_per_weight, size) for size in sizes],
        blocks=blocks if gradients else [Counter() for _ in blocks],
        passing=logits if gradients else reduce(or_, blocks),
        gradient=_times(width if bytes_per_weight else 0, largest),
        scoring=_times(KEEPING, largest),
    )


def _by_device(backbone: Backbone, layer: int) -> Bytes:
    """Number of weights of a decoder block on each device."""
    weights = (linear.module.weight for linear in backbone.linears if linear.layer == layer)
    return sum((Counter({weight.device: weight.numel()}) for weight in weights), Counter())


def _times(factor: int, bytes_: Bytes) -> Bytes:
    return +Counter({device: factor * n for device, n in bytes_.items()})


def plan_passes(needs: Needs, free: Bytes, batch_size: int) -> Plan:
    """Plan as few passes as fit, then the largest batch for them: ``batch_size``, halved as often as needed.

    Raises:
        StudyError: one decoder block and one sample do not fit.
    """
    passes, first, n = [], 0, len(needs.sums)
    while first < n:
        fitting = [end for end in range(first + 1, n + 1) if _fits(needs.of(range(first, end), 1), free)]
        if not fitting:
            raise StudyError(_too_little(needs.of(range(first, first + 1), 1), free))
        passes.append(range(first, fitting[-1]))
        first = fitting[-1]
    while batch_size > 1 and not all(_fits(needs.of(layers, batch_size), free) for layers in passes):
        batch_size //= 2
    return Plan(batch_size, tuple(passes))


def _fits(needed: Bytes, free: Bytes) -> bool:
    return all(free[device] >= n for device, n in needed.items())


def _too_little(needed: Bytes, free: Bytes) -> str:
    device, n = max(needed.items(), key=lambda item: item[1] - free[item[0]])
    where, found = f"scoring: memory of {device}", f"{free[device] / 1e6:,.0f} MB free"
    return explain(where, found, f"{n / 1e6:,.0f} MB for one decoder block and one sample", REMEDY)
