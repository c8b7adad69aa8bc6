"""The directions in which training changed a model, with which regions of ranks are compared."""

import torch
from torch import Tensor

from safety_regions.formats.subspaces import Subspaces
from safety_regions.model.backbone import Backbone
from safety_regions.units.fractions import scope_count


def change_space(backbone: Backbone, fraction: float) -> Subspaces:
    """The left singular vectors of W - W_base of every projection, those of the largest singular values first.

    A projection that did not change has none, and one that changed in a few directions (neurons, a LoRA update) has no
    more than these.

    Args:
        backbone: with a base of the same shapes.
        fraction: of the ranks of each projection: most directions that are kept (0-1].

    Raises:
        StudyError: backbone and base have other shapes.
    """
    bases, ranks = {}, {}
    for where, weight, base in backbone.weight_pairs():
        ranks[where] = min(weight.shape)
        vectors, values, _ = torch.linalg.svd(weight.double() - base.double(), full_matrices=False)
        known = int((values > _rounding(weight)).sum())
        n = min(known, scope_count(fraction, ranks[where]))
        bases[where] = vectors[:, :n].float().cpu().numpy()
    how = {"granularity": "rank", "scope": "matrix", "fraction": fraction, "refinement": "raw"}
    return Subspaces.raw(bases, ranks, how)


def _rounding(weight: Tensor) -> float:
    """A bound on the singular values of the error of rounding a matrix to its dtype.

    Those of independent errors of a size d are about d (sqrt(out) + sqrt(in)) at most.
    """
    size = weight.double().square().mean().sqrt()
    return float(torch.finfo(weight.dtype).eps * size * sum(n**0.5 for n in weight.shape))
