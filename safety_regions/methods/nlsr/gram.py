"""The output directions of an adapter's factors, from small Gram matrices instead of all activations.

NLSR (Yi et al. 2024, arXiv 2412.12497; xinykou/NLSR @aaee2b7, src/prune_regions/model_wrapper_low.py 135-250)
treats each factor W of an adapter as a linear layer of its own, stacks its outputs Z = X W^T over all response
tokens, and projects W onto the top k right singular vectors V of Z: W' = V V^T W. In that code Z is (tokens, out)
and its singular vectors come from a randomised algorithm. The same projection follows exactly from

    M = sum over response tokens of z z^T,  z = A x                                        (r, r)

    factor A:  Z^T Z = M, so V holds eigenvectors of M.
    factor B:  its input is z, so Z^T Z = B M B^T. With B = Q R (Q orthonormal), V = Q U where U holds
               eigenvectors of R M R^T.

One forward pass covers all layers. Sums and eigenvectors are float64. Directions in which Z is zero (up to float32
rounding) do not count: if the rank of Z is below k, only as many directions as its rank are retained.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone, ScoredLinear
from safety_regions.model.batches import Batch
from safety_regions.model.lora import Adapter, Lora, added
from safety_regions.scoring.passes import watch_inputs
from safety_regions.scoring.samples import Samples
from safety_regions.units.fractions import scope_count

Grams = dict[str, Tensor]
"""Address of a factor A -> M, float64, (r, r)."""


def gather_grams(
    backbone: Backbone,
    samples: Samples,
    adapter: Sequence[Lora],
    factor: float,
    layer: int | None = None,
) -> Grams:
    """M of every layer of the adapter (or of those in one decoder block), from one forward pass.

    Args:
        backbone: the model that the adapter belongs to.
        samples: sums run over the response tokens of the identification samples.
        adapter: added to the backbone for the pass.
        factor: amplification of the product B A in this pass; z = A x uses A without amplification.
        layer: the decoder block to watch; None watches all.
    """
    watched = [lora for lora in adapter if layer in (None, lora.linear.layer)]
    with added(adapter, factor):
        return watch_inputs(backbone, samples, lambda _: Products(watched))


class Products:
    """Sum of z z^T over response tokens, for each watched layer of an adapter."""

    def __init__(self, adapter: Sequence[Lora]) -> None:
        self.watched = {id(lora.linear.module): lora for lora in adapter}
        self.sums = {
            lora.address: lora.a.new_zeros(len(lora.a), len(lora.a), dtype=torch.float64) for lora in adapter
        }

    def add(self, linear: ScoredLinear, x: Tensor, batch: Batch) -> None:
        lora = self.watched.get(id(linear.module))
        if lora is not None:
            z = (x[batch.response_mask].to(lora.a.dtype) @ lora.a.T).double()
            self.sums[lora.address] += z.T @ z

    def evidence(self, seen: int) -> Grams:
        return self.sums


def gather_sequentially(
    backbone: Backbone,
    samples: Samples,
    adapter: Adapter,
    factor: float,
    fraction: float,
) -> Grams:
    """M block by block, with the adapters of all earlier blocks already projected, as in the released code.

    One forward pass per block. Both factors of a block are measured before either is projected.

    Args:
        backbone: the model that the adapter belongs to.
        samples: run through the model once for each block.
        adapter: before any projection.
        factor: amplification of the product B A.
        fraction: of the rank that the projections retain.
    """
    current, grams = list(adapter), {}
    for layer in sorted({lora.linear.layer for lora in adapter}):
        found = gather_grams(backbone, samples, current, factor, layer)
        current = [_projected(lora, found, fraction) if lora.address in found else lora for lora in current]
        grams |= found
    return grams


def _projected(lora: Lora, grams: Grams, fraction: float) -> Lora:
    k, gram = retained_rank(len(lora.a), fraction), grams[lora.address]
    parts = [project_b(part, k, gram) for _, part in lora.parts()]
    return lora._replace(a=project_a(lora.a, k, gram).float(), b=torch.cat(parts).float())


def retained_rank(rank: int, fraction: float) -> int:
    """The number of directions in a fraction (0-1] of an adapter's rank: int(fraction * rank).

    Raises:
        StudyError: this number is 0.
    """
    k = scope_count(fraction, rank)
    if k == 0:
        raise StudyError(
            explain(
                "NLSR",
                f"`retained: {fraction}` with rank {rank}, which retains no direction",
                "at least one",
                "a larger `retained`, or an adapter with a larger rank",
            )
        )
    return k


def project_a(a: Tensor, k: int, gram: Tensor, removed: Tensor | None = None) -> Tensor:
    """Project A (r, in) onto its top k directions: float64, (r, in).

    Args:
        a: the factor.
        k: number of directions retained.
        gram: M (r, r) over the identification samples.
        removed: M over other samples, whose own top k directions are then projected out: (I - P') P A, the
            orthogonal projection of Wei et al. 2024 (arXiv 2402.05162, section 2.2).
    """
    found = _onto(top_directions(gram, k), a.double())
    return found if removed is None else found - _onto(top_directions(removed, k), found)


def project_b(b: Tensor, k: int, gram: Tensor, removed: Tensor | None = None) -> Tensor:
    """Project B (out, r), or its rows for one projection, onto its top k directions: float64, (out, r).

    Arguments as in `project_a`; ``gram`` is the same M.
    """
    q, r = torch.linalg.qr(b.double())
    grams = [None if m is None else r @ m @ r.T for m in (gram, removed)]
    return q @ project_a(r, k, *grams)


def top_directions(gram: Tensor, k: int) -> Tensor:
    """The k eigenvectors (n, k) of a Gram matrix (n, n) with the largest eigenvalues; fewer if its rank is below k.

    Eigenvalues are squared singular values of Z, whose entries have float32 rounding errors: a direction counts
    if its singular value is above n * eps times the largest.
    """
    values, vectors = torch.linalg.eigh(gram)
    rounding = (len(gram) * torch.finfo(torch.float32).eps) ** 2 * values[-1]
    return vectors[:, -k:][:, values[-k:] > rounding]


def _onto(directions: Tensor, matrix: Tensor) -> Tensor:
    return directions @ (directions.T @ matrix)
