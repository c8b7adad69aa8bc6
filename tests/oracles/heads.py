"""Define scores of attention heads literally: float64, one prompt and one head at a time."""

import copy
import math
from collections.abc import Sequence

from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from tests.oracles.contrasts import inputs_at_prompt, mean
from tests.oracles.layers import last_prompt_states
from tests.oracles.weights import split

Prompts = list[list[list[float]]]
"""Layer -> head -> the number of each prompt."""


def direction(
    backbone: Backbone, harmful: Sequence[Sample], ordinary: Sequence[Sample], blocks: int
) -> list[float]:
    """Return the difference of the mean states at the last prompt token after a number of blocks."""
    sides = [
        [last_prompt_states(backbone, sample, normed=False)[blocks - 1] for sample in samples]
        for samples in (harmful, ordinary)
    ]
    return [
        mean(ours) - mean(theirs)
        for ours, theirs in zip(*(zip(*side, strict=True) for side in sides), strict=True)
    ]


def along_direction(
    backbone: Backbone, harmful: Sequence[Sample], ordinary: Sequence[Sample], blocks: int
) -> Prompts:
    """Return |O_h . r| / |r| of every head for each harmful prompt."""
    model, n = copy.deepcopy(backbone.model).double(), backbone.config.num_attention_heads
    modules = {name: module.weight for name, module in model.named_modules() if name.endswith("_proj")}
    r = direction(backbone, harmful, ordinary, blocks)
    inputs = [[x[-1].tolist() for x in inputs_at_prompt(backbone, sample, "o")] for sample in harmful]
    found: Prompts = []
    for layer in range(model.config.num_hidden_layers):
        o, width = split(model, layer, "o", modules).tolist(), len(inputs[0][layer]) // n
        found.append([])
        for head in range(n):
            columns = range(head * width, (head + 1) * width)
            written = [[math.fsum(row[j] * x[layer][j] for j in columns) for row in o] for x in inputs]
            found[layer].append(
                [
                    abs(math.fsum(a * b for a, b in zip(out, r, strict=True))) / math.hypot(*r)
                    for out in written
                ]
            )
    return found


def worst_ranks(found: Prompts) -> list[list[int]]:
    """Return layer -> the worst rank of each head over the prompts; each prompt ranks all heads, 1 is the largest."""
    every = [(layer, head) for layer, of in enumerate(found) for head in range(len(of))]
    worst = {unit: 0 for unit in every}
    for prompt in range(len(found[0][0])):
        ranked = sorted(every, key=lambda unit: (-found[unit[0]][unit[1]][prompt], unit))
        for rank, unit in enumerate(ranked, start=1):
            worst[unit] = max(worst[unit], rank)
    return [[worst[layer, head] for head in range(len(of))] for layer, of in enumerate(found)]
