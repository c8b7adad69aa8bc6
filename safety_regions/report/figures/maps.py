"""Where sets agree: the median pairwise IoU at every address, layers by projections."""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from safety_regions.overlap.membership import Counts, Membership, as_counts
from safety_regions.report.combinations import by_refinement
from safety_regions.report.figures.heatmap import map_grid, places_of, show_matrix
from safety_regions.report.figures.matrices import colour_scale
from safety_regions.report.figures.style import entitle, say, styled
from safety_regions.units.addresses import parse_address


def iou_by_address(memberships: Iterable[tuple[str, Membership]]) -> pd.DataFrame:
    """Compute the IoUs of all pairs of sets at each address, from the counts of the membership patterns.

    Args:
        memberships: (refinement, membership of the identification sets), in the order shown.

    Returns:
        One row per refinement and address: ``refinement`` (categorical), ``layer`` and ``projection`` (null
        where the unit is a whole layer), ``pairs``, ``undefined`` (pairs without a unit there), and, for
        the defined IoUs, ``median``, ``min`` and ``max``.
    """
    return by_refinement({refinement: _by_address(membership) for refinement, membership in memberships})


def _by_address(membership: Membership) -> pd.DataFrame:
    counts, n_names = as_counts(membership), len(membership.metadata["names"])
    pairs = list(combinations(range(n_names), 2))
    rows = []
    for i, where in enumerate(counts.addresses):
        both, either = _pairwise(counts, i, n_names)
        ious = pd.Series([both[a, b] / either[a, b] for a, b in pairs if either[a, b]], dtype=float)
        rows.append(
            parse_address(where)._asdict()
            | {"pairs": len(pairs), "undefined": len(pairs) - len(ious)}
            | {"median": ious.median(), "min": ious.min(), "max": ious.max()}
        )
    return pd.DataFrame(rows)


def _pairwise(counts: Counts, address: int, n_names: int) -> tuple[np.ndarray, np.ndarray]:
    """Return intersections and unions of every pair of regions at one address: int64, (names, names) each."""
    rows = counts.place == address
    inside = (counts.pattern[rows, None] >> np.arange(n_names)) & 1
    both = inside.T.astype(np.int64) @ (inside * counts.count[rows, None])
    sizes = np.diag(both)
    return both, sizes[:, None] + sizes - both


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
