"""Recovery by regions of ranks: how much of a subspace is in the directions in which alignment changed the weights.

A planted region is a set of weights, and a subspace of a projection's outputs has no weights in common with it. Where
alignment could change the planted weights only, the change W - W_base has a space of its own: its left singular
vectors, those of the largest singular values first. A region of i dimensions is compared with the first j of them, as
many as its selection takes, or fewer where the change has no more (no direction at all where nothing was planted):

    precision = sum tr / sum i      recall = sum tr / sum j      IoU = sum tr / sum (i + j - tr)

with tr = tr(P_region P_change), summed over projections. A random subspace of i of the a available dimensions has an
expected tr of i r / a, where r is what of the change's j directions is available: all, or for a refined region what is
outside the subspace that was removed.
"""

import numpy as np

from safety_regions.formats.subspaces import Subspaces
from safety_regions.units.fractions import scope_count


def recovery_of_subspaces(
    region: Subspaces, change: Subspaces, removed: Subspaces | None = None
) -> dict[str, float | None]:
    """Compare a region of ranks with the directions of a change: the numbers of `recovery.recovery_of_region`.

    Dimensions take the place of weights. ``intersection`` is null, because it is no whole number.

    Args:
        region: of one backbone.
        change: from `scoring.change.change_space`, with at least the region's fraction, at the same addresses.
        removed: the raw region that the refinement of ``region`` removed.
    """
    selected, planted, available, shared, expected = np.zeros((5, len(region.bases)))
    for at, (where, basis) in enumerate(region.bases.items()):
        truth = change.bases[where][:, : scope_count(region.metadata["fraction"], region.units_at[where])]
        inside = _shared(removed.bases[where], truth) if removed else 0.0
        selected[at], planted[at], available[at] = basis.shape[1], truth.shape[1], region.available[where]
        shared[at] = _shared(basis, truth)
        expected[at] = selected[at] * (planted[at] - inside) / max(available[at], 1)
    i, j, both, chance = (float(values.sum()) for values in (selected, planted, shared, expected))
    return {
        "n_weights": region.n_units,
        "n_truth": int(j),
        "n_selected": int(i),
        "intersection": None,
        "precision": _ratio(both, i),
        "recall": _ratio(both, j),
        "iou": _ratio(both, i + j - both),
        "chance": _ratio(chance, i + j - chance),
        "prevalence": _ratio(chance, i),
    }


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    """tr(P Q) for the spans of orthonormal columns."""
    return float(np.square(one.T.astype(np.float64) @ other.astype(np.float64)).sum())


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
