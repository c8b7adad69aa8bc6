"""The model before alignment, in one file beside the aligned checkpoint that training makes from it.

Decoder weights stand under their addresses, so that jobs can read single matrices; all other parameters (embeddings,
norms, biases, the output head) under their own names. Together they are the whole model, because alignment may change
all of them.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone


def copied_weights(backbone: Backbone) -> dict[str, Tensor]:
    """A copy of all weights of a backbone, on the CPU: those of its projections by address, others by name."""
    return {key: weight.detach().cpu().clone() for key, weight in _weights(backbone)}


@torch.no_grad()
def overwrite_weights(backbone: Backbone, path: str | Path) -> None:
    """Give a backbone all the weights in a file of `copied_weights`, in its own dtype.

    Raises:
        StudyError: the file lacks a weight, or has one of another shape.
    """
    with safe_open(path, "pt") as file:
        known = set(file.keys())
        for key, weight in _weights(backbone):
            found = file.get_tensor(key) if key in known else None
            if found is None or found.shape != weight.shape:
                shape = "no such weight" if found is None else f"shape {list(found.shape)}"
                raise StudyError(explain(f"{path}: {key}", shape, f"shape {list(weight.shape)}"))
            weight.copy_(found)


def _weights(backbone: Backbone) -> Iterator[tuple[str, Tensor]]:
    yield from backbone.weights()
    projections = {id(linear.module.weight) for linear in backbone.linears}
    for name, parameter in backbone.model.named_parameters():
        if id(parameter) not in projections:
            yield name, parameter
