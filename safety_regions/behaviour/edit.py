"""Change the weights of a region in place for the duration of a block, and put every bit back afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from safety_regions.behaviour.operations import Change, Matrix
from safety_regions.errors import StudyError, explain
from safety_regions.formats.region import Region
from safety_regions.model.backbone import Backbone

Weights = Mapping[str, Tensor]


@contextmanager
@torch.no_grad()
def edited(
    backbone: Backbone,
    change: Change,
    dose: float,
    region: Region,
    base: Weights | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Apply an operation to a region, yield the number of weights whose value changed, and undo it.

    Args:
        backbone: changed in place.
        change, dose: the operation, from `load_operation`, and its dose.
        region: of granularity weight (see `expand_region`), with the projections of the backbone.
        base: address -> weights before alignment (out, in), for an operation that needs them.
        seed: of an operation that draws random numbers. Each projection has draws of its own.

    Raises:
        StudyError: the base lacks a projection, or has one of another shape.
    """
    before: list[tuple[Tensor, Tensor]] = []
    try:
        n_changed = 0
        for where, weight in backbone.weights():
            inside = torch.from_numpy(region.flags(where)).to(weight.device)
            generator = torch.Generator().manual_seed(crc32(f"{seed} {where}".encode()))
            before_alignment = _base_of(base, where, weight) if base is not None else None
            found = change(Matrix(weight.float(), inside, before_alignment, generator), dose).to(weight.dtype)
            moved = int((found != weight).sum())
            if moved:
                before.append((weight, weight.clone()))
                weight.copy_(found)
            n_changed += moved
        yield n_changed
    finally:
        for weight, values in before:
            weight.copy_(values)


def _base_of(base: Weights, where: str, weight: Tensor) -> Tensor:
    found = base.get(where)
    if found is None or found.shape != weight.shape:
        shape = "no weights" if found is None else f"shape {list(found.shape)}"
        raise StudyError(explain(f"base model: {where}", shape, f"shape {list(weight.shape)}"))
    return found.to(weight.device).float()


def as_array(weight: Tensor) -> np.ndarray:
    """Weights as a float32 array."""
    return weight.detach().float().cpu().numpy()


def fingerprint(backbone: Backbone) -> tuple[int, ...]:
    """A checksum of every projection: equal fingerprints show that all weights are what they were, bit for bit."""
    return tuple(
        crc32(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
        for _, weight in backbone.weights()
    )
