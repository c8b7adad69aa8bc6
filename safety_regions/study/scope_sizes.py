"""How many units are ranked against each other, where that is known before a backbone is loaded.

The config is checked with it: a fraction that keeps no unit of a scope is an error before the run.
"""

from math import prod

from safety_regions.units.addresses import PROJECTIONS
from safety_regions.units.granularity import GLOBAL, LAYER, MATRIX, ROW, Granularity


def smallest_scope(counts: dict, granularity: Granularity, scope: str, rank: int | None) -> int | None:
    """Units of the smallest set that a scope ranks.

    Args:
        counts: sizes of the backbone; see `checkpoints.unit_counts`.
        granularity: of the units.
        scope: row, matrix, layer or global; one of the granularity's.
        rank: of the backbone's LoRA adapter; None where it is not known.

    Returns:
        Their number, or None where the sizes are not known.
    """
    if granularity.whole_layers:
        return counts.get("layers")
    if any(projection not in counts for projection in PROJECTIONS) or (granularity.factors and rank is None):
        return None
    shapes = [
        shape for name in granularity.projections for shape in _shapes(counts[name], name, granularity, rank)
    ]
    if scope == ROW:
        return min(shape[-1] for shape in shapes)
    sizes = [prod(shape) for shape in shapes]
    per_layer = sum(sizes)
    known = {
        MATRIX: min(sizes),
        LAYER: per_layer,
        GLOBAL: per_layer * counts["layers"] if "layers" in counts else None,
    }
    return known[scope]


def _shapes(
    shape: tuple[int, int], projection: str, granularity: Granularity, rank: int | None
) -> list[tuple[int, ...]]:
    """The shapes of a projection's units: of its weights (out, in), its neurons, or its LoRA factors."""
    outputs, inputs = shape
    if granularity.factors:
        return [(rank, inputs), (outputs, rank)]
    if len(granularity.axes) == 1:
        return [(inputs if projection in granularity.columns else outputs,)]
    return [shape]
