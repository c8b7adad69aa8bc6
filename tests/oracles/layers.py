"""Define SafeLayer literally: float64, one prompt and one pair at a time, weights scaled in a copy of the model."""

import copy
import math

import torch

from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.units.addresses import PROJECTIONS
from tests.oracles.weights import module_name, rows


def last_prompt_states(backbone: Backbone, sample: Sample, normed: bool = True) -> list[list[float]]:
    """Return the hidden state of the last prompt token after each block; prompt and response run together."""
    model = copy.deepcopy(backbone.model).double()
    seen = []
    model.get_submodule("model.norm").register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        output = model(input_ids=torch.tensor([sample.ids]), output_hidden_states=True, use_cache=False)
    states = [state[0, sample.prompt_length - 1] for state in output.hidden_states[1:]]
    if not normed:
        states[-1] = seen[0][0, sample.prompt_length - 1]
    return [state.tolist() for state in states]


def angle(u: list[float], v: list[float]) -> float:
    """Return the angle between two vectors in degrees, from the lengths of their sum and difference (Kahan)."""
    nu, nv = math.hypot(*u), math.hypot(*v)
    difference = math.hypot(*(a / nu - b / nv for a, b in zip(u, v, strict=True)))
    total = math.hypot(*(a / nu + b / nv for a, b in zip(u, v, strict=True)))
    return math.degrees(2 * math.atan2(difference, total))


def mean_angle(angles: list[float], average: str = "angle") -> float:
    if average == "angle":
        return sum(angles) / len(angles)
    return math.degrees(math.acos(sum(math.cos(math.radians(a)) for a in angles) / len(angles)))


def pair_means(normal: dict, malicious: dict, average: str = "angle") -> tuple[float, float, float]:
    """Return the mean angles normal-normal, normal-malicious, malicious-malicious of one layer, from id -> vector."""

    def within(side: dict) -> float:
        ids = sorted(side)
        pairs = [(ids[p], ids[q]) for p in range(len(ids)) for q in range(p + 1, len(ids))]
        return mean_angle([angle(side[p], side[q]) for p, q in pairs], average)

    between = [angle(u, v) for p, u in normal.items() for q, v in malicious.items() if p != q]
    return within(normal), mean_angle(between, average), within(malicious)


def scaled_copy(backbone: Backbone, alpha: float, first: int, last: int, only=PROJECTIONS) -> Backbone:
    """Return a copy whose projections ``only`` in blocks first to last (both included) are multiplied by alpha."""
    model = copy.deepcopy(backbone.model)
    with torch.no_grad():
        for layer in range(first, last + 1):
            for projection in only:
                stored = model.get_submodule(module_name(model, layer, projection)).weight
                weight = rows(model, projection, stored)
                exact = weight.float() if weight.dtype == torch.bfloat16 else weight
                weight.copy_(exact * alpha)
    return Backbone(model, backbone.tokenizer, backbone.family, "copy", backbone.format)


def peak(counts: dict[int, int], start: int, sign: int) -> bool:
    """Return whether ``start`` is a local extremum: no count within two of it is better."""
    return all(sign * counts[b] <= sign * counts[start] for b in range(start - 2, start + 3) if b in counts)
