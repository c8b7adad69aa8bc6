"""All figures of the overlaps of one backbone, method and selection, by name, and their tables."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
from matplotlib.figure import Figure

from safety_regions.overlap.gather import region_sizes
from safety_regions.overlap.subspaces import Counted
from safety_regions.report.combinations import by_count, model_rows, pairs
from safety_regions.report.figures.kway import draw_kway
from safety_regions.report.figures.maps import draw_map, iou_by_address
from safety_regions.report.figures.margins import draw_margins, margins
from safety_regions.report.figures.matrices import draw_matrices, tree_of
from safety_regions.report.figures.sizes import draw_sizes, sizes_by_address
from safety_regions.report.figures.tree import merge_table


class Drawn(NamedTuple):
    """Figures ``iou``, ``kway``, ``sizes``, ``map``, ``margins``; tables of these names, and ``tree`` of the sets."""

    figures: dict[str, Figure]
    tables: dict[str, pd.DataFrame]


def figures_of_overlap(
    overlaps: Mapping[str, pa.Table],
    memberships: Mapping[str, Counted],
    names: Sequence[str],
    place: tuple[str, str, str],
) -> Drawn:
    """Draw the figures of overlaps and membership counts.

    Args:
        overlaps: refinement -> its table (`contracts.OVERLAP`), in the order shown.
        memberships: refinement -> its counts or shared dimensions, in the same order.
        names: the identification sets.
        place: backbone, method and selection.

    Raises:
        StudyError: a pair of sets is missing or occurs twice, or a set has no size.
    """
    rows = model_rows(overlaps.items(), names)
    sizes = [(which, region_sizes(one, (*place, which))) for which, one in memberships.items()]
    tables = {
        "iou": pairs(rows, names),
        "kway": by_count(rows),
        "sizes": sizes_by_address(sizes, names),
        "map": iou_by_address(memberships.items()),
        "margins": margins(overlaps.items()),
    }
    tree, title = tree_of(tables["iou"]), " / ".join(place)
    figures = {
        "iou": draw_matrices(tables["iou"], title, tree),
        "kway": draw_kway(tables["kway"], title),
        "sizes": draw_sizes(tables["sizes"], title),
        "map": draw_map(tables["map"], title),
        "margins": draw_margins(tables["margins"], title),
    }
    return Drawn(figures, tables | {"tree": merge_table(tree, names)})
