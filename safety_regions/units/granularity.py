"""The kinds of units a region can be made of: one table that everything else reads.

=============  ====================================================  ==============================================
granularity    a unit                                                what it stands for when methods are compared
=============  ====================================================  ==============================================
weight         an entry of a projection's matrix                     itself
neuron         a row of q, k, v or up; a column of down              the weights of that row or column
layer          a decoder block                                       all weights of its seven projections
lora_weight    an entry of the factor A or B of a LoRA adapter       the weights that the chosen entries move most
=============  ====================================================  ==============================================

A new granularity (attention heads, say) is a new entry here and, where its scores have columns of their own, a
contract in `safety_regions.formats.contracts`.
"""

from dataclasses import dataclass, field

from safety_regions.units.addresses import PROJECTIONS

ROW, MATRIX, LAYER, GLOBAL = "row", "matrix", "layer", "global"


@dataclass(frozen=True)
class Granularity:
    """What code needs to know of a kind of unit.

    Attributes:
        name: as in a method's CARD, in tables and in the metadata of files.
        plural: in sentences.
        contract: name of the score table's contract.
        axes: columns of the score table that, with the address, say which unit a row is; one for each axis of an
            address's shape.
        scopes: sets of units that are ranked against each other, narrowest first.
        stored: scope -> fraction (0-1] of the units whose scores are stored, unless a CARD or the config says more.
        compared_in: scope in which the best fraction is taken when methods are compared with each other.
        bytes_per_parameter: memory that a method's sums take for each parameter of the backbone while it scores.
        projections: those that have such units; none where a unit is not of one projection.
        columns: projections of which a unit is a group of neighbouring columns; of the others, a group of rows.
        whole_layers: a unit is a layer, and all of them lie at the one address "layers".
        factors: units are entries of LoRA factors, so that expansion needs the adapter and scores are of no weight.
        exact_floor: so few units that the floor is an exact expectation over placements rather than a draw.
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
    whole_layers: bool = False
    factors: bool = False
    exact_floor: bool = False


_ALL = (
    Granularity(
        name="weight",
        plural="weights",
        contract="weight_scores",
        axes=("row", "column"),
        scopes=(ROW, MATRIX, LAYER, GLOBAL),
        stored={ROW: 0.05, MATRIX: 0.05},
        compared_in=MATRIX,
        bytes_per_parameter=4,
    ),
    Granularity(
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
    ),
    Granularity(
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
        exact_floor=True,
    ),
    Granularity(
        name="lora_weight",
        plural="weights of the LoRA factors",
        contract="weight_scores",
        axes=("row", "column"),
        scopes=(ROW, MATRIX, LAYER, GLOBAL),
        stored={ROW: 0.05, MATRIX: 0.05},
        compared_in=MATRIX,
        bytes_per_parameter=0,
        factors=True,
    ),
)
GRANULARITIES = {granularity.name: granularity for granularity in _ALL}
