"""Change the weights of a region in place for the duration of a block, and put every bit back afterwards."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from safety_regions.behaviour.operations import Matrix, Operation, load_operation
from safety_regions.errors import StudyError, explain
from safety_regions.formats.expand import Factors, expand_region
from safety_regions.formats.region import Region
from safety_regions.formats.subspaces import AnyRegion, Subspaces
from safety_regions.model.backbone import Backbone
from safety_regions.study.operation_shelf import operation_cards
from safety_regions.units.addresses import WRITERS, parse_address

Weights = Mapping[str, Tensor]


@contextmanager
@torch.no_grad()
def edited(
    backbone: Backbone,
    operation: Operation,
    dose: float,
    region: AnyRegion,
    base: Weights | None = None,
    seed: int = 0,
    aligned: Weights | None = None,
    direction: Tensor | None = None,
) -> Iterator[int]:
    """Apply an operation to a region, yield the number of weights whose value changed, and undo it.

    Args:
        backbone: changed in place.
        operation, dose: from `load_operation`, and how strong.
        region: of granularity weight (see `expand_region`), with the projections of the backbone; or of ranks, for an
            operation that is linear: P times what it does to the whole matrix, with the projector P.
        base: address -> weights before alignment (out, in), for an operation that needs them.
        seed: of an operation that draws random numbers. Each projection has draws of its own.
        aligned: address -> weights before fine-tuning, for a fine-tuned backbone; None: the backbone's own.
        direction: of the residual stream (hidden,), for an operation that needs one.

    Raises:
        StudyError: the base or the aligned model lacks a projection, or has one of another shape.
    """

    def matrix(where: str, weight: Tensor, inside: Tensor | None = None) -> Matrix:
        return Matrix(
            weight.float(),
            (weight if aligned is None else _other(aligned, "aligned", where, weight)).float(),
            (torch.from_numpy(region.flags(where)) if inside is None else inside).to(weight.device),
            None if base is None else _other(base, "base", where, weight).float(),
            torch.Generator().manual_seed(crc32(f"{seed} {where}".encode())),
            direction=_unit(direction, weight) if parse_address(where).projection in WRITERS else None,
        )

    def changed(where: str, weight: Tensor) -> Tensor:
        if isinstance(region, Subspaces):
            nothing, whole = (
                operation.changed(matrix(where, weight, torch.full(weight.shape, inside)), dose)
                for inside in (False, True)
            )
            return nothing + _projected(region.bases[where], whole - nothing)
        return operation.changed(matrix(where, weight)._replace(rank=ranks[where]), dose)

    before: list[tuple[Tensor, Tensor]] = []
    try:
        n_changed = 0
        ranks = _ranks(backbone, operation, matrix)
        for where, weight in backbone.weights():
            found = changed(where, weight).to(weight.dtype)
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


def changeable(
    region: AnyRegion,
    operations: Iterable[str],
    shapes: Mapping[str, Sequence[int]],
    factors: Factors | None = None,
) -> AnyRegion:
    """The region as `edited` takes it: as weights, or as it is if it consists of ranks.

    Args:
        operations: what it shall be changed by.
        shapes, factors: as in `expand_region`.

    Raises:
        StudyError: the units do not fit the shapes, or an operation does not act on subspaces.
    """
    if not isinstance(region, Subspaces):
        return expand_region(region, shapes, factors)
    linear = [name for name, card in operation_cards().items() if card["linear"]]
    for name in operations:
        if name not in linear:
            found = f"operation '{name}' on ranks, whose regions are subspaces"
            raise StudyError(explain("region", found, f"one of {', '.join(linear)}"))
    if region.bases.keys() != shapes.keys() or any(len(b) != shapes[w][0] for w, b in region.bases.items()):
        raise StudyError(explain("region of ranks", "other addresses or outputs", "those of the backbone"))
    return region


def n_weights_of(region: AnyRegion, shapes: Mapping[str, Sequence[int]]) -> int:
    """Number of weights of a changed region; of ranks, the numbers in P W: ranks times inputs."""
    if isinstance(region, Subspaces):
        return sum(n * shapes[where][1] for where, n in region.selected_at.items())
    return region.n_selected


def _projected(basis: np.ndarray, matrix: Tensor) -> Tensor:
    """P times a matrix (out, in), with the projector P on the columns of an orthonormal basis (out, n)."""
    columns = torch.from_numpy(basis).to(matrix)
    return columns @ (columns.T @ matrix)


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
