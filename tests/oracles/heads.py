"""Define scores of attention heads literally: float64, one prompt and one head at a time."""

import copy
import math
from collections.abc import Sequence

import torch

from safety_regions.model.backbone import Backbone, attached
from safety_regions.model.batches import Sample
from tests.oracles.contrasts import inputs_at_prompt, mean
from tests.oracles.layers import last_prompt_states
from tests.oracles.weights import module_name, rows, split

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
    signed = written_along(backbone, harmful, direction(backbone, harmful, ordinary, blocks))
    return [[[abs(value) for value in head] for head in layer] for layer in signed]


def contributions(
    backbone: Backbone, harmful: Sequence[Sample], ordinary: Sequence[Sample], blocks: int
) -> list[list[float]]:
    """Return layer -> for every head the difference between the means of O_h . r / |r| over both classes."""
    r = direction(backbone, harmful, ordinary, blocks)
    ours, theirs = (written_along(backbone, samples, r) for samples in (harmful, ordinary))
    return [
        [mean(a) - mean(b) for a, b in zip(*layers, strict=True)] for layers in zip(ours, theirs, strict=True)
    ]


def written_along(backbone: Backbone, samples: Sequence[Sample], r: Sequence[float]) -> Prompts:
    """Return O_h . r / |r| of every head for each prompt."""
    model, n = copy.deepcopy(backbone.model).double(), backbone.config.num_attention_heads
    modules = {name: module.weight for name, module in model.named_modules() if name.endswith("_proj")}
    inputs = [[x[-1].tolist() for x in inputs_at_prompt(backbone, sample, "o")] for sample in samples]
    found: Prompts = []
    for layer in range(model.config.num_hidden_layers):
        o, width = split(model, layer, "o", modules).tolist(), len(inputs[0][layer]) // n
        found.append([])
        for head in range(n):
            columns = range(head * width, (head + 1) * width)
            written = [[math.fsum(row[j] * x[layer][j] for j in columns) for row in o] for x in inputs]
            found[layer].append(
                [math.fsum(a * b for a, b in zip(out, r, strict=True)) / math.hypot(*r) for out in written]
            )
    return found


def window_of(model, layer: int) -> int | None:
    """Return how many of the latest tokens a token sees in a layer; None: all."""
    types = getattr(model.config, "layer_types", None)
    slides = types is None or types[layer] == "sliding_attention"
    return getattr(model.config, "sliding_window", None) if slides else None


def neutralised(
    model, backbone: Backbone, sample: Sample, unit: tuple[int, int] | None, kind: str
) -> list[float]:
    """Return the log-probabilities of the token after the prompt, without a (layer, head); the response runs along.

    The head's slice of o's input becomes 0 (``output``), or at each token the plain mean of the values that it sees
    (``uniform``): those of the key-value head of its group. ``model`` is the backbone's in float64, eager.
    """
    n, hooks = backbone.config.num_attention_heads, []
    if unit is not None:
        layer, head = unit
        values: list[list[float]] = []
        width, window = backbone.head_dim, window_of(model, layer)
        group = head // (n // backbone.config.num_key_value_heads)

        def keep(_module, _args, output):
            v = rows(model, "v", output[0].T)[group * width : (group + 1) * width]
            values[:] = v.T.tolist()

        def replace(_module, args):
            x = args[0].clone()
            for i in range(x.shape[1]):
                seen = range(0 if window is None else max(0, i - window + 1), i + 1)
                uniform = [math.fsum(values[j][k] for j in seen) / len(seen) for k in range(width)]
                slot = x[0, i, head * width : (head + 1) * width]
                slot.copy_(torch.tensor(uniform if kind == "uniform" else [0.0] * width))
            return (x,)

        hooks.append(model.get_submodule(module_name(model, layer, "v")).register_forward_hook(keep))
        hooks.append(model.get_submodule(module_name(model, layer, "o")).register_forward_pre_hook(replace))
    with torch.no_grad(), attached(hooks):
        logits = model(input_ids=torch.tensor([sample.ids]), use_cache=False).logits
    return logits[0, sample.prompt_length - 1].log_softmax(0).tolist()


def ships(backbone: Backbone, samples: Sequence[Sample], kind: str) -> Prompts:
    """Return the divergence of the next token with every head from that without it, for each prompt; nats."""

    def divergence(whole: list[float], without: list[float]) -> float:
        return math.fsum(math.exp(p) * (p - q) for p, q in zip(whole, without, strict=True))

    model = copy.deepcopy(backbone.model).double()
    model.set_attn_implementation("eager")
    whole = [neutralised(model, backbone, sample, None, kind) for sample in samples]
    return [
        [
            [
                divergence(p, neutralised(model, backbone, sample, (layer, head), kind))
                for p, sample in zip(whole, samples, strict=True)
            ]
            for head in range(backbone.config.num_attention_heads)
        ]
        for layer in range(backbone.config.num_hidden_layers)
    ]


def worst_ranks(found: Prompts) -> list[list[int]]:
    """Return layer -> the worst rank of each head over the prompts; each prompt ranks all heads, 1 is the largest."""
    every = [(layer, head) for layer, of in enumerate(found) for head in range(len(of))]
    worst = {unit: 0 for unit in every}
    for prompt in range(len(found[0][0])):
        ranked = sorted(every, key=lambda unit: (-found[unit[0]][unit[1]][prompt], unit))
        for rank, unit in enumerate(ranked, start=1):
            worst[unit] = max(worst[unit], rank)
    return [[worst[layer, head] for head in range(len(of))] for layer, of in enumerate(found)]
