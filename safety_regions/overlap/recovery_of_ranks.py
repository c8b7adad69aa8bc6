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
from safety_regions.overlap.chance import ratio_or_null
from safety_regions.overlap.subspaces import shared_dimensions
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
    j, both, chance = 0, 0.0, 0.0
    for where, basis in region.bases.items():
        n = scope_count(region.metadata["fraction"], region.units_at[where])
        truth = change.bases[where][:, :n].astype(np.float64)
        within_reach = truth.shape[1] - (shared_dimensions(removed.bases[where], truth) if removed else 0)
        j += truth.shape[1]
        both += shared_dimensions(basis, truth)
        chance += basis.shape[1] * within_reach / max(region.available[where], 1)
    i = region.n_selected
    return {
        "n_weights": region.n_units,
        "n_truth": j,
        "n_selected": i,
        "intersection": None,
        "precision": ratio_or_null(both, i),
        "recall": ratio_or_null(both, j),
        "iou": ratio_or_null(both, i + j - both),
        "chance": ratio_or_null(chance, i + j - chance),
        "prevalence": ratio_or_null(chance, i),
    }
