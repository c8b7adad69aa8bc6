"""A region on a loaded transformers model: its weights as masks of parameters, or set to zero for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from safety_regions.api.regions import Region, expand
from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone, find_family


class _Part(NamedTuple):
    """A parameter of a model, and the addresses of a region of weights that it stores, in row order."""

    name: str
    parameter: nn.Parameter
    weights: Region
    addresses: tuple[str, ...]

    def mask(self) -> Tensor:
        """The region's weights in it: boolean, of its shape, on its device; made anew, a byte for each weight."""
        joined = np.concatenate([self.weights.masks[address] for address in self.addresses])
        return torch.from_numpy(joined).to(self.parameter.device)


def weight_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Address -> (out, in) of every matrix of a model that a region can lie in, fused ones split.

    Args:
        model: a causal language model of transformers (AutoModelForCausalLM) of a known family.

    Example:
        >>> expand(load_region("neurons.safetensors"), weight_shapes(model))

    Raises:
        StudyError: the model is of no known family.
    """
    return {where: tuple(shape) for where, shape in _backbone(model).shapes.items()}


def weight_masks(region: Region, model: nn.Module) -> dict[str, Tensor]:
    """Parameter name -> the region's weights in it, as booleans of the parameter's shape, on its device.

    Every matrix that a region can lie in has a mask, all False where the region holds none of its weights. Where the
    model stores several in one (Phi-3's ``qkv_proj``), their rows are joined as the model joins them.

    Args:
        region: of weights, neurons or layers of this model.
        model: a causal language model of transformers (AutoModelForCausalLM) of a known family.

    Example:
        >>> masks = weight_masks(load_region("raw.safetensors"), model)
        >>> masks["model.layers.0.self_attn.q_proj.weight"].sum()

    Raises:
        StudyError: the model is of no known family, or the region of a model of other shapes.
    """
    return {part.name: part.mask() for part in _parts(region, model)}


@contextmanager
def zeroed(model: nn.Module, region: Region) -> Iterator[None]:
    """Within the block the region's weights are 0; at its end they are again what they were, bit for bit.

    They come back after an exception too. What the block writes elsewhere in the model stays.

    Args:
        model: a causal language model of transformers (AutoModelForCausalLM) of a known family.
        region: of weights, neurons or layers of this model.

    Example:
        >>> with zeroed(model, load_region("raw.safetensors")):
        ...     model.generate(**inputs)

    Raises:
        StudyError: the model is of no known family, its weights are not in memory, or the region is of a model of
            other shapes.
    """
    _require_in_memory(model)
    parts, saved = _parts(region, model), []
    try:
        with torch.no_grad():
            for part in parts:
                mask = part.mask()
                saved.append(part.parameter[mask])
                part.parameter.masked_fill_(mask, 0)
        yield
    finally:
        with torch.no_grad():
            for part, values in zip(parts, saved, strict=False):
                part.parameter[part.mask()] = values.to(part.parameter)


def _parts(region: Region, model: nn.Module) -> list[_Part]:
    backbone = _backbone(model)
    weights = expand(region, backbone.shapes)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        _Part(names[id(weight)], weight, weights, tuple(piece.address for piece in linear.slices))
        for linear in backbone.linears
        for weight in [linear.module.weight]
    ]


def _backbone(model: nn.Module) -> Backbone:
    """The model by addresses; without a tokenizer, since nothing here reads text."""
    where = type(model).__name__
    backbone = Backbone(model, None, find_family(where, model.config.model_type), where)
    try:
        model.get_submodule(path := backbone.family.layers[model.config.model_type])
    except AttributeError:
        expected = "a causal language model as AutoModelForCausalLM loads it"
        raise StudyError(explain(where, f"no {path}", expected)) from None
    return backbone


def _require_in_memory(model: nn.Module) -> None:
    absent = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if absent:
        found = f"{len(absent)} parameters that are not in memory, e.g. {absent[0]}"
        raise StudyError(explain(type(model).__name__, found, "all weights on the CPU or GPUs"))
