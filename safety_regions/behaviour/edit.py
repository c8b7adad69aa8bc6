"""Change the weights of a region in place for the duration of a block, and put every bit back afterwards."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from safety_regions.behaviour.operations import Matrix, Operation, load_operation
from safety_regions.errors import StudyError, explain
from safety_regions.formats.region import Region
from safety_regions.model.backbone import Backbone
from safety_regions.units.addresses import WRITERS, parse_address

Weights = Mapping[str, Tensor]


@contextmanager
@torch.no_grad()
def edited(
    backbone: Backbone,
    operation: Operation,
    dose: float,
    region: Region,
    base: Weights | None = None,
    seed: int = 0,
    aligned: Weights | None = None,
    direction: Tensor | None = None,
) -> Iterator[int]:
    """Apply an operation to a region, yield the number of weights whose value changed, and undo it.

    Args:
        backbone: changed in place.
        operation, dose: from `load_operation`, and how strong.
        region: of granularity weight (see `expand_region`), with the projections of the backbone.
        base: address -> weights before alignment (out, in), for an operation that needs them.
        seed: of an operation that draws random numbers. Each projection has draws of its own.
        aligned: address -> weights before fine-tuning, for a fine-tuned backbone; None: the backbone's own.
        direction: of the residual stream (hidden,), for an operation that needs one.

    Raises:
        StudyError: the base or the aligned model lacks a projection, or has one of another shape.
    """

    def matrix(where: str, weight: Tensor) -> Matrix:
        return Matrix(
            weight.float(),
            (weight if aligned is None else _other(aligned, "aligned", where, weight)).float(),
            torch.from_numpy(region.flags(where)).to(weight.device),
            None if base is None else _other(base, "base", where, weight).float(),
            torch.Generator().manual_seed(crc32(f"{seed} {where}".encode())),
            direction=_unit(direction, weight) if parse_address(where).projection in WRITERS else None,
        )

    before: list[tuple[Tensor, Tensor]] = []
    try:
        n_changed = 0
        ranks = _ranks(backbone, operation, matrix)
        for where, weight in backbone.weights():
            ranked = matrix(where, weight)._replace(rank=ranks[where])
            found = operation.changed(ranked, dose).to(weight.dtype)
            moved = int((found != weight).sum())
            if moved:
                before.append((weight, weight.clone()))
                weight.copy_(found)
            n_changed += moved
        yield n_changed
    finally:
        for weight, values in before:
            weight.copy_(values)


@contextmanager
@torch.no_grad()
def without_direction(backbone: Backbone, direction: Tensor) -> Iterator[int]:
    """Orthogonalise all that writes into the residual stream, yield the number of changed weights, and undo it.

    These are the embedding and every o and down. The embedding's weights are replaced for the duration of the block, so
    an output head that is tied to them keeps its own. See the operation ``orthogonalise`` for when this equals taking
    the direction out of the stream.

    Args:
        backbone: changed in place. Its matrices that write into the stream must have no bias, as in all families.
        direction: (hidden,), of any length.
    """
    operation, embedding = load_operation("orthogonalise"), backbone.model.get_input_embeddings()
    own = embedding.weight
    columns, everywhere = own.T.float(), torch.ones_like(own.T, dtype=torch.bool)
    matrix = Matrix(columns, columns, everywhere, None, torch.Generator(), direction=_unit(direction, own))
    changed = operation.changed(matrix, 1.0).T.to(own.dtype).contiguous()
    with edited(backbone, operation, 1.0, all_weights(backbone), direction=direction) as n_changed:
        embedding.weight = nn.Parameter(changed, requires_grad=own.requires_grad)
        try:
            yield n_changed + int((changed != own).sum())
        finally:
            embedding.weight = own


def n_writing(backbone: Backbone) -> int:
    """The number of weights that write into the residual stream."""
    written = (w for where, w in backbone.weights() if parse_address(where).projection in WRITERS)
    return backbone.model.get_input_embeddings().weight.numel() + sum(weight.numel() for weight in written)


def _unit(direction: Tensor | None, weight: Tensor) -> Tensor | None:
    """A direction of length 1, float32, on the device of a weight."""
    return (
        None
        if direction is None
        else nn.functional.normalize(direction, dim=0).to(weight.device, torch.float32)
    )


def _ranks(
    backbone: Backbone, operation: Operation, matrix: Callable[[str, Tensor], Matrix]
) -> dict[str, float]:
    """`Matrix.rank` of every projection."""
    if operation.similarity is None:
        return {where: 0.0 for where, _ in backbone.weights()}
    found = {where: operation.similarity(matrix(where, weight)) for where, weight in backbone.weights()}
    order = sorted(found, key=lambda where: -found[where])
    return {where: place / max(1, len(order) - 1) for place, where in enumerate(order)}


def _other(weights: Weights, model: str, where: str, weight: Tensor) -> Tensor:
    """The weights of another model that stand where ``weight`` does."""
    found = weights.get(where)
    if found is None or found.shape != weight.shape:
        shape = "no weights" if found is None else f"shape {list(found.shape)}"
        raise StudyError(explain(f"{model} model: {where}", shape, f"shape {list(weight.shape)}"))
    return found.to(weight.device)


def all_weights(backbone: Backbone, inside: bool = True) -> Region:
    """The region of all weights, or of none."""
    flags = {where: np.full(shape, inside) for where, shape in backbone.shapes.items()}
    return Region.pack(flags, {"granularity": "weight"})


def as_array(weight: Tensor) -> np.ndarray:
    """Weights as a float32 array."""
    return weight.detach().float().cpu().numpy()


def fingerprint(backbone: Backbone) -> tuple[int, ...]:
    """A checksum of every projection: equal fingerprints show that all weights are what they were, bit for bit."""
    return tuple(
        crc32(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
        for _, weight in backbone.weights()
    )
