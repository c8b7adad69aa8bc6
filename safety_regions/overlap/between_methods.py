"""Agreement of methods: their regions on the same backbone and dataset, at equal size, as weights.

Each method's best fraction is taken at its own granularity (weights and neurons within each projection, heads within
each layer, layers within the model) and expanded to weights, so that all regions have about the same share of the
weights that the method scores; the overlap table has the exact counts. Projections that a method does not score (gate
and o for neurons, the feed-forward part for heads) contain none of its weights.

Chance is that of weights drawn within each projection, given where a layer method put its layers. Between layer methods
that would be their own overlap, so there whole layers are drawn, and between methods of heads whole heads.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from safety_regions.formats.columns import column, numbers
from safety_regions.formats.contracts import OVERLAP
from safety_regions.formats.expand import Factors, Shapes, expand_region
from safety_regions.formats.region import Region
from safety_regions.formats.score_file import ScoreFile
from safety_regions.overlap.few_units import drawn_overlaps
from safety_regions.overlap.iou import JOIN, compute_overlap
from safety_regions.overlap.membership import Membership, count_regions
from safety_regions.regions.select import select_region
from safety_regions.units.addresses import Place, parse_address
from safety_regions.units.granularity import GRANULARITIES

Law = Callable[[Sequence[str], str, Place], float]
"""The chance of a combination of labels, at a level (model, layer or projection) and its place."""


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
    overlap, few = compute_overlap(membership), {}
    for label, region in regions.items():
        if GRANULARITIES[region.metadata["granularity"]].few:
            few.setdefault(region.metadata["granularity"], {})[label] = region
    return membership, _with_chance_of_units(overlap, few, shapes)


def _with_chance_of_units(
    overlap: pa.Table, few: Mapping[str, Mapping[str, Region]], shapes: Shapes
) -> pa.Table:
    """Replace chance where several methods choose whole layers, or heads: null if other methods take part.

    Args:
        few: granularity -> label -> region.
        shapes: address -> (out, in) of every projection.
    """
    laws = {
        kind: _law_of_layers(of) if GRANULARITIES[kind].whole_layers else _law_of_heads(of, shapes)
        for kind, of in few.items()
        if len(of) > 1
    }
    chance = np.array(numbers(overlap, "chance", null=np.nan))
    for row, at in enumerate(overlap.select(["combination", "level", "layer", "projection"]).to_pylist()):
        members = at["combination"].split(JOIN)
        for kind, law in laws.items():
            if len(few[kind].keys() & set(members)) > 1:
                alike = set(members) <= few[kind].keys()
                chance[row] = (
                    law(members, at["level"], Place(at["layer"], at["projection"])) if alike else np.nan
                )
    place = OVERLAP.schema.get_field_index("chance")
    return overlap.set_column(place, OVERLAP.schema.field(place), column(chance, missing=np.isnan(chance)))


def _law_of_heads(heads: Mapping[str, Region], shapes: Shapes) -> Law:
    """The mean IoU, as weights, of random heads; draws without any weight there are left out."""
    drawn = cache(lambda members: drawn_overlaps([heads[label] for label in members], shapes))

    def law(members: Sequence[str], level: str, place: Place) -> float:
        wanted = [
            counts
            for where, counts in drawn(tuple(members)).items()
            if all(asked in (None, own) for asked, own in zip(place, parse_address(where), strict=True))
        ]
        if not wanted:
            return np.nan
        both, either = np.sum(wanted, axis=0)
        return float((both[either > 0] / either[either > 0]).mean()) if either.any() else np.nan

    return law


def _law_of_layers(layers: Mapping[str, Region]) -> Law:
    drawn = compute_overlap(count_regions(layers))  # units are layers, so there is one row per combination
    of_model = dict(zip(drawn["combination"].to_pylist(), drawn["chance"].to_pylist(), strict=True))
    density = {label: region.n_selected / region.n_units for label, region in layers.items()}

    def law(members: Sequence[str], level: str, place: Place) -> float:
        if level == "layer":
            return _of_one_layer([density[label] for label in members])
        return of_model[JOIN.join(members)]

    return law


def _of_one_layer(density: Sequence[float]) -> float:
    """The expected IoU at one layer, which each region has or lacks as a whole, where any has it."""
    taken = np.array(density)
    return float(taken.prod() / (1 - (1 - taken).prod()))
