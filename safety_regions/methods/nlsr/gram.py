"""The directions in which an adapter's factors work: Gram matrices of small size, in place of all activations.

NLSR (Yi et al. 2024, arXiv 2412.12497; xinykou/NLSR @aaee2b7, src/prune_regions/model_wrapper_low.py 135-250)
takes each factor W of an adapter as a linear layer of its own, stacks its outputs Z = X W^T over all response
tokens, and projects W on the k top right singular vectors V of Z: W' = V V^T W. There Z is (tokens, out) and
its singular vectors come from a randomised algorithm. The same projection follows exactly from

    M = sum over response tokens of z z^T,  z = A x                                        (r, r)

    factor A:  Z^T Z = M, so V holds eigenvectors of M.
    factor B:  its input is z, so Z^T Z = B M B^T. With B = Q R (Q orthonormal), V = Q U where U holds
               eigenvectors of R M R^T.

One forward pass serves all layers. Sums and eigenvectors are float64. Directions in which Z vanishes (up to the
rounding of float32) are no directions: where Z has a rank below k, all its rank is kept and no more.
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
        backbone: the model under the adapter.
        samples: the tokens of the identification samples' responses count.
        adapter: added to the backbone for the pass.
        factor: amplification of the product B A in this pass; z = A x takes A as it is.
        layer: the decoder block to watch; None watches all.
    """
    watched = [lora for lora in adapter if layer in (None, lora.linear.layer)]
    with added(adapter, factor):
        return watch_inputs(backbone, samples, lambda _: Products(watched))


class Products:
    """Sums of z z^T over response tokens, for each layer of an adapter that is watched."""

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
    """M block by block, each seen with the adapters of all earlier blocks projected, as the released code does.

    One forward pass for each block. Both factors of a block are recorded before either is projected.

    Args:
        backbone: the model under the adapter.
        samples: passed once for each block.
        adapter: as it is before any projection.
        factor: amplification of the product B A.
        fraction: of the rank, retained by the projections.
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
    """How many directions a fraction (0-1] of an adapter's rank is: int(fraction * rank).

    Raises:
        StudyError: none.
    """
    k = scope_count(fraction, rank)
    if k == 0:
        raise StudyError(
            explain(
                "NLSR", f"{fraction} of rank {rank}, which is no direction", "at least one", "a larger rank"
            )
        )
    return k


def project_a(a: Tensor, k: int, gram: Tensor, removed: Tensor | None = None) -> Tensor:
    """A (r, in) on its k top directions: float64, (r, in).

    Args:
        a: the factor.
        k: directions retained.
        gram: M (r, r) over the identification samples.
        removed: M over other samples, whose own k top directions are then projected out: (I - P') P A, the
            orthogonal projection of Wei et al. 2024 (arXiv 2402.05162, section 2.2).
    """
    found = _onto(top_directions(gram, k), a.double())
    return found if removed is None else found - _onto(top_directions(removed, k), found)


def project_b(b: Tensor, k: int, gram: Tensor, removed: Tensor | None = None) -> Tensor:
    """B (out, r), or the rows of it that form one projection, on its k top directions: float64, (out, r).

    Arguments as in `project_a`; ``gram`` is the same M.
    """
    q, r = torch.linalg.qr(b.double())
    grams = [None if m is None else r @ m @ r.T for m in (gram, removed)]
    return q @ project_a(r, k, *grams)


def top_directions(gram: Tensor, k: int) -> Tensor:
    """The k eigenvectors (n, k) of a Gram matrix (n, n) with the largest eigenvalues; fewer where its rank is less.

    Eigenvalues are squared singular values of Z, whose entries carry float32's rounding: a direction counts
    where its singular value is above n * eps of the largest.
    """
    values, vectors = torch.linalg.eigh(gram)
    rounding = (len(gram) * torch.finfo(torch.float32).eps) ** 2 * values[-1]
    return vectors[:, -k:][:, values[-k:] > rounding]


def _onto(directions: Tensor, matrix: Tensor) -> Tensor:
    return directions @ (directions.T @ matrix)
