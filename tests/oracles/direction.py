"""Define the direction and its scores literally: float64, one prompt, one neuron and one head at a time."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from tests.oracles.contrasts import Numbers, mean, numbers
from tests.oracles.layers import last_prompt_states
from tests.oracles.weights import weights_of


class Column(NamedTuple):
    """A column that writes into the stream: values of its input for both classes, u.w and |w|."""

    harmful: list[float]
    ordinary: list[float]
    along: float
    norm: float


def direction(
    backbone: Backbone, harmful: Sequence[Sample], ordinary: Sequence[Sample], blocks: int
) -> list[float]:
    """Return the difference of the mean last prompt states after a number of blocks."""
    both = [
        [last_prompt_states(backbone, sample, normed=False)[blocks - 1] for sample in samples]
        for samples in (harmful, ordinary)
    ]
    means = [[mean(values) for values in zip(*states, strict=True)] for states in both]
    return [ours - theirs for ours, theirs in zip(*means, strict=True)]


def written(
    backbone: Backbone, harmful: Sequence[Sample], ordinary: Sequence[Sample], r: Sequence[float]
) -> dict[str, list[list[list[Column]]]]:
    """Return layer -> neuron -> the columns through which it writes, for the rows of v and for the neurons of down."""
    config, weights, u = backbone.config, weights_of(backbone), [value / math.hypot(*r) for value in r]
    heads, kv, width = config.num_attention_heads, config.num_key_value_heads, backbone.head_dim
    columns = {}
    for projection in ("o", "down"):
        both = [numbers(backbone, samples, "last", projection) for samples in (harmful, ordinary)]
        for layer, inputs in enumerate(zip(*both, strict=True)):
            written_by = weights[f"layers.{layer}.{projection}"].T.tolist()
            columns[projection, layer] = [
                Column(ours, theirs, math.fsum(a * b for a, b in zip(u, w, strict=True)), math.hypot(*w))
                for ours, theirs, w in zip(*inputs, written_by, strict=True)
            ]
    layers = range(config.num_hidden_layers)
    of_v = [
        [
            [columns["o", layer][head * width + j] for head in range(heads) if head * kv // heads == group]
            for group in range(kv)
            for j in range(width)
        ]
        for layer in layers
    ]
    return {"v": of_v, "down": [[[column] for column in columns["down", layer]] for layer in layers]}


def statistic(columns: Sequence[Column], name: str) -> float:
    """Return the statistic of one neuron; the contribution with its sign."""
    if name == "contribution":
        return math.fsum((mean(c.harmful) - mean(c.ordinary)) * c.along for c in columns)
    if name == "energy":
        return math.fsum(math.sqrt(mean([a * a for a in c.harmful])) * abs(c.along) for c in columns)
    along = math.fsum(abs(c.along) for c in columns)
    return along if name == "static" else along / math.fsum(c.norm for c in columns)


def statistics(found: dict[str, list[list[list[Column]]]], name: str) -> dict[str, Numbers]:
    """Return layer -> neuron -> the statistic, for v and for down."""
    return {
        projection: [[statistic(columns, name) for columns in layer] for layer in layers]
        for projection, layers in found.items()
    }
