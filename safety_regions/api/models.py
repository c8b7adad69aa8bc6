"""Apply a region to a loaded transformers model: get masks of its parameters, or set its weights to zero."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from safety_regions.api.regions import Region, expand
from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone
from safety_regions.model.loading import find_family


class _Part(NamedTuple):
    """A parameter of a model, a region of weights, and the addresses stored in the parameter, in row order."""

    name: str
    parameter: nn.Parameter
    weights: Region
    addresses: tuple[str, ...]

    def mask(self) -> Tensor:
        """A new boolean mask of the region's weights, with the parameter's shape and device (1 byte per weight)."""
        joined = np.concatenate([self.weights.masks[address] for address in self.addresses])
        return torch.from_numpy(joined).to(self.parameter.device)


def weight_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Address -> (out, in) of every matrix of a model that a region can contain, with fused matrices split.

    Args:
        model: a causal language model of transformers (AutoModelForCausalLM) of a known family.

    Example:
        >>> expand(load_region("neurons.safetensors"), weight_shapes(model))

    Raises:
        StudyError: the model does not belong to a known family.
    """
    return {where: tuple(shape) for where, shape in _backbone(model).shapes.items()}


def weight_masks(region: Region, model: nn.Module) -> dict[str, Tensor]:
    """Parameter name -> boolean mask of the region's weights, with the parameter's shape and device.

    Every matrix that a region can contain has a mask, which is all False if the region has no weights in it. If the
    model stores several matrices in one parameter (Phi-3's ``qkv_proj``), their rows are joined in the model's order.

    Args:
        region: region of weights, neurons, heads or layers of this model.
        model: a causal language model of transformers (AutoModelForCausalLM) of a known family.

    Example:
        >>> masks = weight_masks(load_region("raw.safetensors"), model)
        >>> masks["model.layers.0.self_attn.q_proj.weight"].sum()

    Raises:
        StudyError: the model does not belong to a known family, or the region's shapes do not match the model.
    """
    return {part.name: part.mask() for part in _parts(region, model)}


@contextmanager
def zeroed(model: nn.Module, region: Region) -> Iterator[None]:
    """Set the region's weights to 0 inside the block, and restore them bit for bit at its end.

    They are restored after an exception too. Other changes to the model inside the block are kept.

    Args:
        model: a causal language model of transformers (AutoModelForCausalLM) of a known family.
        region: region of weights, neurons, heads or layers of this model.

    Example:
        >>> with zeroed(model, load_region("raw.safetensors")):
        ...     model.generate(**inputs)

    Raises:
        StudyError: the model does not belong to a known family, its weights are not in memory, or the region's shapes
            do not match the model.
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
    """A `Backbone` around the model, without a tokenizer, because nothing here needs one."""
    where = type(model).__name__
    backbone = Backbone(model, None, find_family(where, model.config.model_type), where)
    try:
        model.get_submodule(path := backbone.family.layers[model.config.model_type])
    except AttributeError:
        expected = "a causal language model loaded with AutoModelForCausalLM"
        raise StudyError(explain(where, f"no {path}", expected)) from None
    return backbone


def _require_in_memory(model: nn.Module) -> None:
    absent = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if absent:
        found = f"{len(absent)} parameters that are not in memory, e.g. {absent[0]}"
        raise StudyError(explain(type(model).__name__, found, "all weights in CPU or GPU memory"))
