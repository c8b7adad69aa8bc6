"""Agreement of methods: their regions on the same backbone and dataset, at equal size, as weights.

Each method's best fraction is taken at its own granularity (weights and neurons within each projection, layers
within the model) and expanded to weights, so that all regions have about the same number of weights; the
overlap table has the exact counts. Projections that a method does not score (gate and o for neurons) contain
none of its weights.

Chance is that of weights drawn within each projection, given where a layer method put its layers. Between layer methods
that would be their own overlap, so there whole layers are drawn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from safety_regions.formats.columns import column, numbers
from safety_regions.formats.contracts import OVERLAP
from safety_regions.formats.expand import Factors, expand_region
from safety_regions.formats.region import Region
from safety_regions.formats.score_file import ScoreFile
from safety_regions.overlap.iou import JOIN, compute_overlap
from safety_regions.overlap.membership import Membership, count_regions
from safety_regions.regions.select import select_region
from safety_regions.units.granularity import GRANULARITIES

Shapes = Mapping[str, Sequence[int]]


def best_region(scores_path: str | Path, fraction: float) -> Region:
    """Return a method's best ``fraction`` (0-1) of the scope ``compared_in``, in its own units.

    Raises:
        StudyError: the table is damaged or stores less, or the fraction is less than one layer.
    """
    return select_region(scores_path, ScoreFile(scores_path).granularity.compared_in, fraction)


def overlap_of_methods(
    regions: Mapping[str, Region], weight_shapes: Shapes, factors: Factors | None = None
) -> tuple[Membership, pa.Table]:
    """Return membership and overlaps, an `OVERLAP` table, of the methods' regions as weights.

    Args:
        regions: label of a method -> its region, from `best_region`.
        weight_shapes: address -> (out, in) of every projection of the backbone.
        factors: address -> its LoRA factors, for a method that scores an adapter.
    """
    shapes = {where: tuple(shape) for where, shape in weight_shapes.items()}
    membership = count_regions(
        {label: expand_region(region, shapes, factors) for label, region in regions.items()}
    )
    overlap = compute_overlap(membership)
    layers = {
        label: region
        for label, region in regions.items()
        if GRANULARITIES[region.metadata["granularity"]].whole_layers
    }
    return membership, _with_chance_of_layers(overlap, layers) if len(layers) > 1 else overlap


def _with_chance_of_layers(overlap: pa.Table, layers: Mapping[str, Region]) -> pa.Table:
    """Replace chance where several methods choose whole layers: null if other methods take part."""
    drawn = compute_overlap(count_regions(layers))  # units are layers, so there is one row per combination
    of_model = dict(zip(drawn["combination"].to_pylist(), drawn["chance"].to_pylist(), strict=True))
    density = {label: region.n_selected / region.n_units for label, region in layers.items()}
    chance = np.array(numbers(overlap, "chance", null=np.nan))
    rows = zip(overlap["combination"].to_pylist(), overlap["level"].to_pylist(), strict=True)
    for row, (combination, level) in enumerate(rows):
        members = combination.split(JOIN)
        if len(layers.keys() & set(members)) < 2:
            continue
        if not set(members) <= layers.keys():
            chance[row] = np.nan
        elif level == "layer":
            chance[row] = _of_one_layer([density[label] for label in members])
        else:
            chance[row] = of_model[combination]
    place = OVERLAP.schema.get_field_index("chance")
    return overlap.set_column(place, OVERLAP.schema.field(place), column(chance, missing=np.isnan(chance)))


def _of_one_layer(density: Sequence[float]) -> float:
    """The expected IoU at one layer, which each region has or lacks as a whole, where any has it."""
    taken = np.array(density)
    return float(taken.prod() / (1 - (1 - taken).prod()))
