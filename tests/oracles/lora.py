"""Define NLSR literally: float64, merged weights, all activations in memory, a full singular value decomposition."""

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.units.addresses import PROJECTIONS
from tests.oracles.weights import family, module_name, split


def factors(directory: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], float]:
    """Return A and B by module name, in float64, and alpha / r, read from peft's files."""
    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = load_file(directory / "adapter_model.safetensors")
    a, b = (
        {
            key.removeprefix("base_model.model.").removesuffix(f".lora_{x}.weight"): tensor.double()
            for key, tensor in tensors.items()
            if key.endswith(f".lora_{x}.weight")
        }
        for x in "AB"
    )
    return a, b, config["lora_alpha"] / config["r"]


def merged(backbone: Backbone, directory: Path, factor: float):
    """Return a float64 copy of the model with the adapter merged into the weights: W + factor * alpha / r * B A."""
    a, b, scale = factors(directory)
    model = copy.deepcopy(backbone.model).double()
    for name in a:
        model.get_submodule(name).weight += factor * scale * b[name] @ a[name]
    return model


def inputs_at_responses(model, names, samples: list[Sample]) -> dict[str, torch.Tensor]:
    """Return module name -> its inputs at all response tokens, stacked: (tokens, in)."""
    seen: dict[str, torch.Tensor] = {}
    found: dict[str, list] = {name: [] for name in names}
    handles = [
        model.get_submodule(n).register_forward_pre_hook(
            lambda _m, args, n=n: seen.__setitem__(n, args[0][0])
        )
        for n in names
    ]
    for sample in samples:
        with torch.no_grad():
            model(input_ids=torch.tensor([sample.ids]))
        for name in names:
            found[name] += [seen[name][t] for t in range(sample.prompt_length, len(sample.ids))]
    for handle in handles:
        handle.remove()
    return {name: torch.stack(rows) for name, rows in found.items()}


def projection(x: torch.Tensor, w: torch.Tensor, k: int) -> torch.Tensor:
    """Return V V^T for the k top right singular vectors V of Z = X W^T."""
    v = torch.linalg.svd(x @ w.T).Vh[:k].T
    return v @ v.T


def nlsr(
    backbone: Backbone, directory: Path, samples: list[Sample], k: int, factor: float, other=None, p=0
) -> dict:
    """Return |P W| of every factor by address; with ``other`` samples |(I - P') P W|, where P' has p directions."""
    a, b, _ = factors(directory)
    model = merged(backbone, directory, factor)
    x = inputs_at_responses(model, list(a), samples)
    y = inputs_at_responses(model, list(a), other) if other else None
    found = {}
    for layer in range(model.config.num_hidden_layers):
        for projection_name in PROJECTIONS:
            name = module_name(model, layer, projection_name)
            part = split(model, layer, projection_name, b)
            where = f"layers.{layer}.{projection_name}"
            z = x[name] @ a[name].T
            found[f"{where}.A"] = projection(x[name], a[name], k) @ a[name]
            found[f"{where}.B"] = projection(z, part, k) @ part
            if other:
                u = y[name] @ a[name].T
                found[f"{where}.A"] -= projection(y[name], a[name], p) @ found[f"{where}.A"]
                found[f"{where}.B"] -= projection(u, part, p) @ found[f"{where}.B"]
            if projection_name not in {parts[0] for parts in family(model).modules.values()}:
                del found[f"{where}.A"]  # fused projections share one A, at the address of the first
    return {where: values.abs() for where, values in found.items()}
