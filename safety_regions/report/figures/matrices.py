"""Pairwise IoU matrices of the whole model, one panel for each refinement."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from safety_regions.report.combinations import REFERENCES
from safety_regions.report.figures.heatmap import Labels, show_matrix
from safety_regions.report.figures.style import entitle, grid, say, styled
from safety_regions.report.figures.tree import Tree, draw_tree, join_sets

CELL = 0.42
"""Inches of a cell of the matrix."""

TREE, TITLE = 0.55, 0.45
"""Inches of the dendrogram above the first panel, and of the panel's title above that."""

SPAN = 0.02
"""Smallest range of the colours, so that small differences in IoU do not look like structure."""


@styled
def draw_matrices(
    pairs: pd.DataFrame,
    where: str,
    tree: Tree | None = None,
    title: str = "Pairwise IoU of safety regions, whole model",
) -> Figure:
    """Draw the table of `combinations.pairs`, a panel for each ``refinement``; all share one colour scale.

    The scale spans the IoUs of different sets; the diagonal, a region with itself, is grey. With fewer than two
    regions the panels say so.

    Args:
        tree: orders the sets in every panel and is drawn above the first; without it, sets are sorted by name.
    """
    known, refinements = list(pairs["a"].cat.categories), list(pairs["refinement"].cat.categories)
    names = tree.names if tree else known
    side, above = CELL * len(names) + 0.085 * max(map(len, names)), TREE if tree else 0.0
    figure, axes = grid(len(refinements), max(side + 0.3, 3.0), max(side + 0.8, 2.3) + above, aside=1.0)
    if tree:  # the layout ignores the tree above a panel: make space for it and the title
        figure.set_figheight(figure.get_figheight() + TITLE)
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - (TREE + TITLE) / figure.get_figheight()))
    entitle(figure, title, where, **({"y": 1.0, "va": "bottom"} if tree else {}))
    scale, image = colour_scale(pairs["iou"]), None
    for axis, refinement in zip(axes, refinements, strict=True):
        one = pairs[pairs["refinement"] == refinement]
        axis.set_title(f"{refinement}\n{beside(one)}")
        if len(names) < 2:
            say(axis, "needs two sets")
            continue
        diagonal, place = {(i, i) for i in range(len(names))}, [known.index(name) for name in names]
        values = matrix(one)[np.ix_(place, place)]
        image = show_matrix(axis, values, Labels(names, names), scale, digits=2, grey=diagonal)
        axis.set_aspect("equal")
        axis.tick_params(axis="x", rotation=90)
    if image is not None:
        figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, label="IoU (0-1)")
        _crown(axes[0], tree)
    return figure


def tree_of(pairs: pd.DataFrame) -> Tree:
    """Return the tree of the first refinement (raw, where the study has it)."""
    first = pairs["refinement"].cat.categories[0]
    return join_sets(list(pairs["a"].cat.categories), matrix(pairs[pairs["refinement"] == first]))


def _crown(axis: Axes, tree: Tree | None) -> None:
    """Put the tree above a panel, and the panel's title above the tree."""
    if tree is None:
        return
    crown = axis.inset_axes((0, 1.02, 1, TREE / (CELL * len(tree.names))))
    draw_tree(crown, tree)
    crown.set_title(axis.get_title())
    axis.set_title("")


def matrix(pairs: pd.DataFrame) -> np.ndarray:
    """Return the symmetric matrix (sets, sets) of one refinement's IoUs; NaN on the diagonal and where undefined."""
    n = len(pairs["a"].cat.categories)
    values = np.full((n, n), np.nan)
    a, b = pairs["a"].cat.codes, pairs["b"].cat.codes
    values[a, b] = values[b, a] = pairs["iou"]
    return values


def colour_scale(values: pd.Series) -> Normalize:
    """Return a scale from the smallest to the largest defined value, at least `SPAN` wide."""
    defined = values.dropna()
    if defined.empty:
        return Normalize(0, 1)
    low, high = defined.min(), defined.max()
    spare = max(0.0, SPAN - (high - low)) / 2
    return Normalize(max(0.0, low - spare), high + spare)


def beside(pairs: pd.DataFrame) -> str:
    """Describe the median IoU and the means of its references, e.g. ``median 0.213, chance 0.026``.

    Methods that do not score the same weights also have the range of their `combinations.largest_possible`.
    """
    said = [f"median {pairs['iou'].median():.3f}"] if pairs["iou"].notna().any() else []
    said += [f"{name} {pairs[name].mean():.3f}" for name in REFERENCES if pairs[name].notna().any()]
    if "possible" in pairs and pairs["possible"].min() < 1:
        said += [f"largest possible {pairs['possible'].min():.2f} to {pairs['possible'].max():.2f}"]
    # Two per line, since a panel with few sets is narrow.
    return "\n".join(", ".join(said[i : i + 2]) for i in range(0, len(said), 2))
