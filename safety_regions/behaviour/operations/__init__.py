"""The operations: one file for each; an operation changes the weights of a region.

An operation's module documents what it does and its source in the docstring, and defines two names:

``CARD``
    a literal dict, checked against ``study/schemas/operation.schema.yaml``. It is read from the syntax tree, so listing
    the operations imports none of them.
``changed(matrix, dose)``
    return all weights of a projection after the operation, float32 (out, in); see `Matrix`.

and, if it ranks the projections of a model among each other, a third:

``similarity(matrix)``
    a number for each projection; `Matrix.rank` is its place among all.
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
        weight: the weights that are changed, float32: those of the aligned model, or of one that was fine-tuned.
        aligned: the weights of the aligned model, float32.
        inside: whether each weight belongs to the region, bool.
        base: the weights of the base model, float32; None if the operation needs none.
        generator: the random numbers of this projection, for an operation that draws some.
        rank: 0 for the projection with the highest similarity, 1 for that with the lowest, evenly spaced between them;
            0 if the operation defines none.
        direction: a unit vector (out,) of the residual stream, float32, for a matrix that writes into it; None for any
            other, or if there is no direction.
    """

    weight: Tensor
    aligned: Tensor
    inside: Tensor
    base: Tensor | None
    generator: torch.Generator
    rank: float = 0.0
    direction: Tensor | None = None


class Operation(NamedTuple):
    """The functions of an operation's module; ``similarity`` is None if it defines none."""

    changed: Callable[[Matrix, float], Tensor]
    similarity: Callable[[Matrix], float] | None


def load_operation(name: str) -> Operation:
    """Import the module of an operation."""
    module = importlib.import_module(operation_module(name))
    return Operation(module.changed, getattr(module, "similarity", None))
