"""Clusters of similar sets: average linkage on 1 - IoU, and the dendrogram that orders a matrix."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.cluster.hierarchy import dendrogram, leaves_list, linkage
from scipy.spatial.distance import squareform

from safety_regions.overlap.iou import JOIN
from safety_regions.report.figures.style import GREY

STUB = 0.005
"""Minimum IoU distance between the leaves and the closest join."""


class Tree(NamedTuple):
    """Sets in the order of the leaves, and scipy's linkage of them (merges, 4); None for fewer than two sets."""

    names: list[str]
    merges: np.ndarray | None


def join_sets(names: list[str], ious: np.ndarray) -> Tree:
    """Average linkage (Sokal and Michener 1958) on 1 - IoU; similar sets are neighbours as far as the tree allows.

    Args:
        names: sets, in the order of the matrix.
        ious: pairwise IoUs (sets, sets), symmetric; an undefined IoU counts as 0, nothing shared.
    """
    if len(names) < 2:
        return Tree(list(names), None)
    distance = 1 - np.nan_to_num(ious)
    np.fill_diagonal(distance, 0)
    merges = linkage(squareform(distance), "average", optimal_ordering=True)
    return Tree([names[i] for i in leaves_list(merges)], merges)


def merge_table(tree: Tree, names: list[str]) -> pd.DataFrame:
    """Return one row per merge, closest first: ``iou`` (mean between the sides, undefined as 0), ``left``, ``right``.

    Sets are in the order of the leaves, so the last row has all of them as the figure shows them.

    Args:
        names: as given to `join_sets`.
    """
    place = {name: i for i, name in enumerate(tree.names)}
    members, rows = [[name] for name in names], []
    for left, right, height, _ in tree.merges if tree.merges is not None else ():
        sides = sorted((members[int(left)], members[int(right)]), key=lambda side: place[side[0]])
        members.append([*sides[0], *sides[1]])
        rows.append({"iou": 1 - height, "left": JOIN.join(sides[0]), "right": JOIN.join(sides[1])})
    return pd.DataFrame(rows, columns=["iou", "left", "right"])


def draw_tree(axis: Axes, tree: Tree) -> None:
    """Draw a tree above a matrix whose columns are its leaves.

    Branches join at the mean IoU between their sets; leaves are drawn slightly below the closest join.
    """
    ious = 1 - tree.merges[:, 2]
    stub = max(0.25 * (ious.max() - ious.min()), STUB)
    drawn = dendrogram(tree.merges, no_plot=True)
    for x, heights in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        y = [1 - height if height > 0 else ious.max() + stub for height in heights]
        # scipy puts the leaves at 5, 15, 25, ...
        axis.plot((np.array(x) - 5) / 10, y, color=GREY, linewidth=1)
    axis.set_xlim(-0.5, len(tree.names) - 0.5)
    axis.set_xticks([])
    axis.set_ylim(ious.max() + stub, ious.min() - stub / 2)
    ticks = sorted({f"{ious.min():.2f}", f"{ious.max():.2f}"})
    axis.set_yticks([float(tick) for tick in ticks], ticks, size=7)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=2)
