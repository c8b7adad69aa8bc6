"""Define contrasts of two classes of prompts literally: float64, one prompt, one neuron and one token at a time."""

import copy
import math
from collections.abc import Sequence

import torch

from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from tests.oracles.weights import module_name, split

Numbers = list[list[float]]
"""One list of numbers per layer."""


def inputs_at_prompt(backbone: Backbone, sample: Sample, projection: str = "down") -> list[torch.Tensor]:
    """Return the inputs of a projection at the prompt's tokens, (tokens, in) per layer; the response runs along."""
    model, seen = copy.deepcopy(backbone.model).double(), {}
    layers = range(model.config.num_hidden_layers)
    for layer in layers:
        model.get_submodule(module_name(model, layer, projection)).register_forward_pre_hook(
            lambda _m, args, layer=layer: seen.__setitem__(layer, args[0][0])
        )
    with torch.no_grad():
        model(input_ids=torch.tensor([sample.ids]), use_cache=False)
    return [seen[layer][: sample.prompt_length] for layer in layers]


def one_number(values: Sequence[float], tokens: str) -> float:
    """Return a prompt's number for one neuron from its values at the tokens."""
    return {"last": values[-1], "mean": sum(values) / len(values), "max": max(values)}[tokens]


def numbers(
    backbone: Backbone, samples: Sequence[Sample], tokens: str = "last", projection: str = "down"
) -> list[Numbers]:
    """Return layer -> neuron -> the number of each prompt."""
    found: list[Numbers] = []
    for sample in samples:
        for layer, x in enumerate(inputs_at_prompt(backbone, sample, projection)):
            if layer == len(found):
                found.append([[] for _ in range(x.shape[1])])
            for k, values in enumerate(x.T.tolist()):
                found[layer][k].append(one_number(values, tokens))
    return found


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def squares(values: Sequence[float]) -> float:
    """Return the sum of squared deviations from the mean."""
    return math.fsum((value - mean(values)) ** 2 for value in values)


def differences(harmful: Numbers, ordinary: Numbers) -> list[float]:
    """Return the difference of the means of each neuron of a layer."""
    return [mean(ours) - mean(theirs) for ours, theirs in zip(harmful, ordinary, strict=True)]


def cna(backbone: Backbone, harmful: Sequence[Sample], ordinary: Sequence[Sample]) -> Numbers:
    """Return delta of every neuron: layer -> neuron."""
    both = (numbers(backbone, samples) for samples in (harmful, ordinary))
    return [differences(*layers) for layers in zip(*both, strict=True)]


def column_norms(backbone: Backbone) -> Numbers:
    """Return the norm of every column of down: layer -> neuron."""
    model = copy.deepcopy(backbone.model).double()
    modules = {name: module.weight for name, module in model.named_modules() if name.endswith("down_proj")}
    down = (split(model, layer, "down", modules) for layer in range(model.config.num_hidden_layers))
    return [[math.hypot(*column) for column in weight.T.tolist()] for weight in down]


def active_shares(backbone: Backbone, ordinary: Sequence[Sample], n_active: int) -> Numbers:
    """Return how often each neuron is among the n most active of all layers: layer -> neuron, from 0 to 1."""
    found = numbers(backbone, ordinary)
    counts = [[0] * len(layer) for layer in found]
    for prompt in range(len(ordinary)):
        every = [(abs(v[prompt]), i, k) for i, layer in enumerate(found) for k, v in enumerate(layer)]
        for _, i, k in sorted(every, reverse=True)[:n_active]:
            counts[i][k] += 1
    return [[count / len(ordinary) for count in layer] for layer in counts]


def effect(harmful: Sequence[float], ordinary: Sequence[float]) -> float:
    """Return the difference of the means of one neuron over its pooled standard deviation (n - 1 in each class)."""
    free = len(harmful) + len(ordinary) - 2
    pooled = math.sqrt((squares(harmful) + squares(ordinary)) / free)
    return (mean(harmful) - mean(ordinary)) / pooled if pooled else 0.0


def effects_and_shifts(
    backbone: Backbone, harmful: Sequence[Sample], ordinary: Sequence[Sample], tokens: str
) -> tuple[Numbers, Numbers, Numbers]:
    """Return difference, effect size and standardised shift of every neuron: layer -> neuron."""
    both = [numbers(backbone, samples, tokens) for samples in (harmful, ordinary)]
    deltas, effects, shifts = [], [], []
    for ours, theirs in zip(*both, strict=True):
        delta = differences(ours, theirs)
        spread = math.sqrt(squares(delta) / len(delta))
        deltas.append(delta)
        effects.append([effect(*pair) for pair in zip(ours, theirs, strict=True)])
        shifts.append([(value - mean(delta)) / spread for value in delta])
    return deltas, effects, shifts


def region(
    found: tuple[Numbers, Numbers, Numbers], effect_threshold: float, shift_threshold: float
) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Return the (layer, neuron) pairs of the two regions, of effect sizes and of shifts."""
    deltas, effects, shifts = found
    every = [(i, k) for i, layer in enumerate(deltas) for k in range(len(layer))]
    of_effect = {(i, k) for i, k in every if effects[i][k] > effect_threshold}
    of_shift = {(i, k) for i, k in every if shifts[i][k] > shift_threshold and deltas[i][k] > 0}
    return of_effect, of_shift
