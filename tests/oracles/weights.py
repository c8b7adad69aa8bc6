"""Define methods of weights literally: float64, one sample at a time, the model's own forward and backward pass."""

import copy
import statistics
from collections.abc import Iterator

import torch

from safety_regions.families import Family, family_of
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.units.addresses import PROJECTIONS


def family(model) -> Family:
    """Return the names of a model's modules; tests/model/test_families.py checks that they are right."""
    return family_of(model.config.model_type)


def module_name(model, layer: int, projection: str) -> str:
    """Return the full name of the module that stores a projection."""
    table = family(model)
    return f"{table.layers[model.config.model_type]}.{layer}.{table.module_of(projection)}"


def rows(model, projection: str, stored: torch.Tensor) -> torch.Tensor:
    """Return the rows of one projection, a view of its module's tensor (Phi-3 fuses q, k, v and gate, up)."""
    config, table = model.config, family(model)
    parts = table.modules[table.module_of(projection)]
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    q, kv, f = config.num_attention_heads * head, config.num_key_value_heads * head, config.intermediate_size
    size = {"q": q, "k": kv, "v": kv, "o": config.hidden_size, "gate": f, "up": f, "down": config.hidden_size}
    start = sum(size[part] for part in parts[: parts.index(projection)])
    return stored[start : start + size[projection]]


def split(model, layer: int, projection: str, by_module: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the rows of one projection from tensors given per module."""
    return rows(model, projection, by_module[module_name(model, layer, projection)])


def _linears(model) -> dict[str, torch.nn.Linear]:
    blocks = family(model).layers[model.config.model_type]
    return {
        n: m
        for n, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and n.startswith(f"{blocks}.")
    }


def _by_address(model, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    layers = range(model.config.num_hidden_layers)
    return {f"layers.{i}.{p}": split(model, i, p, tensors) for i in layers for p in PROJECTIONS}


def weights_of(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Return the weights of every projection, in float64."""
    model = backbone.model
    return _by_address(model, {name: m.weight.detach().double() for name, m in _linears(model).items()})


def gradients(model, samples: list[Sample], loss: str) -> Iterator[dict[str, torch.Tensor]]:
    """Yield each sample's gradient of the negative log-likelihood of its response: module -> (out, in).

    Args:
        model: in float64, with parameters that require gradients.
    """
    linears = _linears(model)
    for sample in samples:
        model.zero_grad()
        logits = model(input_ids=torch.tensor([sample.ids])).logits[0]
        terms = [
            -torch.log_softmax(logits[t - 1], dim=-1)[sample.ids[t]]
            for t in range(sample.prompt_length, len(sample.ids))
        ]
        value = sum(terms) / (len(terms) if loss == "mean" else 1)
        value.backward()
        yield {name: module.weight.grad.clone() for name, module in linears.items()}


def exact(backbone: Backbone):
    """Return a copy of the model in float64 whose parameters require gradients."""
    return copy.deepcopy(backbone.model).double().requires_grad_(True)


def snip(backbone: Backbone, samples: list[Sample], loss: str = "mean") -> dict[str, torch.Tensor]:
    """Return |W| * mean over samples of |gradient of the negative log-likelihood of the response|."""
    model = exact(backbone)
    found = list(gradients(model, samples, loss))
    scores = {
        name: module.weight.detach().abs() * sum(one[name].abs() for one in found) / len(samples)
        for name, module in _linears(model).items()
    }
    return _by_address(model, scores)


def mean_gradient(backbone: Backbone, samples: list[Sample], loss: str = "mean") -> dict[str, torch.Tensor]:
    """Return the mean over samples of the gradient of the negative log-likelihood of the response."""
    model = exact(backbone)
    found = list(gradients(model, samples, loss))
    means = {name: sum(one[name] for one in found) / len(samples) for name in _linears(model)}
    return _by_address(model, means)


def gradient(
    backbone: Backbone, samples: list[Sample], loss: str = "mean", scale: str = "none"
) -> dict[str, torch.Tensor]:
    """Return |mean gradient|, or its product with the standard deviation of the matrix's entries (divided by n - 1)."""
    found = {where: mean.abs() for where, mean in mean_gradient(backbone, samples, loss).items()}
    if scale == "none":
        return found
    weights = weights_of(backbone)
    return {
        where: values * statistics.stdev(weights[where].flatten().tolist()) for where, values in found.items()
    }


def signed_snip(
    backbone: Backbone, samples: list[Sample], loss: str = "mean", absolute: bool = False
) -> dict[str, torch.Tensor]:
    """Return -W * mean gradient, or its absolute value."""
    weights, means = weights_of(backbone), mean_gradient(backbone, samples, loss)
    scores = {where: -weights[where] * means[where] for where in means}
    return {where: values.abs() for where, values in scores.items()} if absolute else scores


def delta(backbone: Backbone, base: Backbone) -> dict[str, torch.Tensor]:
    """Return |W - W_base|, entry by entry, in float64."""
    before, found = weights_of(base), {}
    for where, weight in weights_of(backbone).items():
        rows = zip(weight.tolist(), before[where].tolist(), strict=True)
        entries = [[abs(a - b) for a, b in zip(*pair, strict=True)] for pair in rows]
        found[where] = torch.tensor(entries, dtype=torch.float64)
    return found


def wanda(backbone: Backbone, samples: list[Sample], positions: str = "response") -> dict[str, torch.Tensor]:
    """Return |W| * root of the mean squared input over the counted positions of all samples."""
    model = copy.deepcopy(backbone.model).double()
    linears = _linears(model)
    seen: dict[str, torch.Tensor] = {}
    handles = [
        m.register_forward_pre_hook(lambda _m, args, n=n: seen.__setitem__(n, args[0][0]))
        for n, m in linears.items()
    ]
    total = {name: torch.zeros(m.in_features, dtype=torch.float64) for name, m in linears.items()}
    n = 0
    for sample in samples:
        with torch.no_grad():
            model(input_ids=torch.tensor([sample.ids]))
        length, start = len(sample.ids), sample.prompt_length
        counted = {
            "response": range(start, length),
            "predicting": range(start - 1, length - 1),
            "all": range(length),
        }
        n += len(counted[positions])
        for name, x in seen.items():
            for t in counted[positions]:
                total[name] += x[t] ** 2
    for handle in handles:
        handle.remove()
    scores = {name: m.weight.abs() * (total[name] / n).sqrt() for name, m in linears.items()}
    return _by_address(model, scores)
