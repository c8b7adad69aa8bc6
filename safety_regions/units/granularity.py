"""Granularities: the kinds of units that a region can consist of, in one table used by all other code.

=============  ====================================================  ===============================================
granularity    a unit                                                its weights when methods are compared
=============  ====================================================  ===============================================
weight         an entry of a projection's matrix                     itself
neuron         a row of q, k, v or up; a column of down              the weights of that row or column
head           a query head of a layer                               its rows of q and its columns of o; the rows of k
                                                                     and v if all heads that read them are selected
layer          a decoder block                                       all weights of its seven projections
lora_weight    an entry of the factor A or B of a LoRA adapter       the weights that the selected entries change most
rank           a direction of a projection's outputs                 none: a region is a subspace, not a set of weights
=============  ====================================================  ===============================================

To add a granularity, add an entry here and, if its score table needs other columns, a
contract in `safety_regions.formats.contracts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from safety_regions.units.addresses import HEADS, LAYERS, PROJECTIONS, address, parse_address

ROW, MATRIX, LAYER, GLOBAL = "row", "matrix", "layer", "global"


@dataclass(frozen=True)
class Granularity:
    """Properties of a kind of unit.

    Attributes:
        name: name in a method's CARD, in tables and in the metadata of files.
        plural: plural form for sentences.
        contract: name of the score table's contract.
        axes: columns of the score table that identify a unit within its address; one for each axis of the address's
            shape.
        scopes: the scopes within which units can be ranked, narrowest first.
        stored: scope -> default stored fraction (0-1] of the scores; a CARD or the config can change it.
        compared_in: scope in which the best fraction is selected when methods are compared.
        bytes_per_parameter: memory of a method's attribution statistics per parameter of the backbone, in bytes.
        projections: the projections whose weights belong to such units; empty if all do.
        columns: projections in which a unit is a group of neighbouring columns; in the others, it is a group of rows.
        part: what follows the layer in the address of units that own weights of several projections; None if the
            units of each projection have its address.
        shared: projection whose groups of rows belong to several neighbouring units together -> a projection in which
            each unit has as large a group of its own.
        whole_layers: whether a unit is a layer; all units then have the same address, "layers".
        few: whether a layer has so few units that laws for many small units do not hold.
        factors: whether units are entries of LoRA factors; expansion to weights then needs the adapter, and scores do
            not belong to weights.
        exact_floor: whether there are so few units that the permutation null (floor) is computed exactly over all
            placements, not by random shuffles.
        subspaces: whether a unit is a direction of a projection's outputs, and a region a subspace at each address
            (`safety_regions.formats.subspaces`). An address has min(out, in) units. A subspace has no units in common
            with another one, but a dimension that is shared in part: there are no memberships, IoUs of more than two
            regions, samples of scores, or weights.
    """

    name: str
    plural: str
    contract: str
    axes: tuple[str, ...]
    scopes: tuple[str, ...]
    stored: dict[str, float] = field(hash=False)
    compared_in: str
    bytes_per_parameter: int
    projections: tuple[str, ...] = PROJECTIONS
    columns: frozenset[str] = frozenset()
    part: str | None = None
    shared: Mapping[str, str] = field(default_factory=dict, hash=False)
    whole_layers: bool = False
    few: bool = False
    factors: bool = False
    exact_floor: bool = False
    subspaces: bool = False

    def home(self, where: str) -> str | None:
        """The address of the units that own the weights of the projection at ``where``; None if none do."""
        if self.whole_layers:
            return LAYERS
        layer, projection = parse_address(where)
        if projection not in self.projections:
            return None
        return where if self.part is None else address(layer, self.part)


_WEIGHT = Granularity(
    name="weight",
    plural="weights",
    contract="weight_scores",
    axes=("row", "column"),
    scopes=(ROW, MATRIX, LAYER, GLOBAL),
    stored={ROW: 0.05, MATRIX: 0.05},
    compared_in=MATRIX,
    bytes_per_parameter=4,
)
_NEURON = Granularity(
    name="neuron",
    plural="neurons",
    contract="neuron_scores",
    axes=("unit",),
    scopes=(MATRIX, LAYER, GLOBAL),
    stored={MATRIX: 1.0, LAYER: 1.0, GLOBAL: 1.0},
    compared_in=MATRIX,
    bytes_per_parameter=1,
    projections=("q", "k", "v", "up", "down"),
    columns=frozenset({"down"}),
)
_HEAD = Granularity(
    name="head",
    plural="heads",
    contract="head_scores",
    axes=("head",),
    scopes=(LAYER, GLOBAL),
    stored={LAYER: 1.0, GLOBAL: 1.0},
    compared_in=LAYER,
    bytes_per_parameter=0,
    projections=("q", "k", "v", "o"),
    columns=frozenset({"o"}),
    part=HEADS,
    shared={"k": "q", "v": "q"},
    few=True,
)
_LAYER = Granularity(
    name="layer",
    plural="layers",
    contract="layer_scores",
    axes=("layer",),
    scopes=(GLOBAL,),
    stored={GLOBAL: 1.0},
    compared_in=GLOBAL,
    bytes_per_parameter=0,
    projections=(),
    whole_layers=True,
    few=True,
    exact_floor=True,
)
_LORA_WEIGHT = replace(
    _WEIGHT, name="lora_weight", plural="weights of the LoRA factors", bytes_per_parameter=0, factors=True
)
_RANK = Granularity(
    name="rank",
    plural="ranks",
    contract="rank_scores",
    axes=("rank",),
    scopes=(MATRIX,),
    stored={MATRIX: 0.1},
    compared_in=MATRIX,
    bytes_per_parameter=4,  # float64 Gram matrices of the hidden size, at most four in a layer
    subspaces=True,
)
GRANULARITIES = {kind.name: kind for kind in (_WEIGHT, _NEURON, _HEAD, _LAYER, _LORA_WEIGHT, _RANK)}
# Projections that hold the feed-forward neurons of a plant: neuron k is row k of up and column k of down.
FEED_FORWARD = ("up", "down")
