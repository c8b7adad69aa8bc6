"""Where sets agree: the median pairwise IoU at every address, layers by projections."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from safety_regions.overlap.membership import Membership, addresses_of, as_counts, sizes_at
from safety_regions.overlap.subspaces import Counted, Shared, shared_at
from safety_regions.report.combinations import by_refinement
from safety_regions.report.figures.heatmap import map_grid, places_of, show_matrix
from safety_regions.report.figures.matrices import colour_scale
from safety_regions.report.figures.style import entitle, say, styled
from safety_regions.units.addresses import parse_address


def iou_by_address(memberships: Iterable[tuple[str, Counted]]) -> pd.DataFrame:
    """Compute the IoUs of all pairs of sets at each address, from what was counted there.

    Args:
        memberships: (refinement, membership or shared dimensions of the identification sets), in the order shown.

    Returns:
        One row per refinement and address: ``refinement`` (categorical), ``layer`` and ``projection`` (null
        where the unit is a whole layer), ``pairs``, ``undefined`` (pairs without a unit there), and, for
        the defined IoUs, ``median``, ``min`` and ``max``.
    """
    return by_refinement({refinement: _by_address(membership) for refinement, membership in memberships})


def _by_address(counted: Counted) -> pd.DataFrame:
    rows, pairwise = [], _pairwise_shared if isinstance(counted, Shared) else _pairwise_counts
    for where, both, either in pairwise(counted):
        ious = pd.Series(both[either > 0] / either[either > 0], dtype=float)
        rows.append(
            parse_address(where)._asdict()
            | {"pairs": len(both), "undefined": len(both) - len(ious)}
            | {"median": ious.median(), "min": ious.min(), "max": ious.max()}
        )
    return pd.DataFrame(rows)


def _pairwise_counts(membership: Membership) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each address with the intersections and unions of every pair of regions there: int64, (pairs,) each."""
    counts, n_names = as_counts(membership), len(membership.metadata["names"])
    first, second = np.triu_indices(n_names, k=1)
    for address, where in enumerate(counts.addresses):
        rows = counts.place == address
        inside = (counts.pattern[rows, None] >> np.arange(n_names)) & 1
        both = inside.T.astype(np.int64) @ (inside * counts.count[rows, None])
        sizes = np.diag(both)
        yield where, both[first, second], (sizes[:, None] + sizes - both)[first, second]


def _pairwise_shared(shared: Shared) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The same of subspaces, whose shared dimensions are the intersection: float64."""
    first, second = np.triu_indices(len(shared.metadata["names"]), k=1)
    for where, both, sizes in zip(addresses_of(shared), shared_at(shared).T, sizes_at(shared).T, strict=True):
        yield where, both, sizes[first] + sizes[second] - both


@styled
def draw_map(ious: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `iou_by_address`: layers downwards, projections across, a panel per refinement."""
    refinements, places = list(ious["refinement"].cat.categories), places_of(ious)
    figure, axes = map_grid(len(refinements), places, aside=0.9)
    entitle(figure, "Where sets agree: median pairwise IoU by layer and projection", where)
    scale, image = colour_scale(ious["median"]), None
    for axis, refinement in zip(axes, refinements, strict=True):
        one = ious[ious["refinement"] == refinement]
        axis.set_title(refinement)
        if not one["pairs"].any():
            say(axis, "needs two sets")
            continue
        image = show_matrix(axis, places.matrix(one, "median"), places.labels, scale, digits=2)
        axis.set_xlabel("projection")
        axis.set_ylabel("layer")
    if image is not None:
        figure.colorbar(image, ax=axes, shrink=0.8, aspect=25, label="median IoU (0-1)")
    return figure
