"""The operations: one file for each; an operation changes the weights of a region.

An operation's module documents what it does and its source in the docstring, and defines two names:

``CARD``
    a literal dict, checked against ``study/schemas/operation.schema.yaml``. It is read from the syntax tree, so listing
    the operations imports none of them.
``changed(matrix, dose)``
    return all weights of a projection after the operation, float32 (out, in); see `Matrix`.
"""

import importlib
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from safety_regions.study.operation_shelf import operation_module


class Matrix(NamedTuple):
    """One projection that an operation changes; all tensors have the shape (out, in).

    Attributes:
        weight: the weights of the aligned model, float32.
        inside: whether each weight belongs to the region, bool.
        base: the weights of the base model, float32; None if the operation needs none.
        generator: the random numbers of this projection, for an operation that draws some.
    """

    weight: Tensor
    inside: Tensor
    base: Tensor | None
    generator: torch.Generator


Change = Callable[[Matrix, float], Tensor]


def load_operation(name: str) -> Change:
    """The function `changed` of an operation."""
    return importlib.import_module(operation_module(name)).changed
