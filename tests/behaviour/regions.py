"""Random regions of a backbone for tests of behaviour."""

import numpy as np

from safety_regions.formats.region import Region
from safety_regions.formats.subspaces import Subspaces
from safety_regions.model.backbone import Backbone
from safety_regions.units.addresses import HEADS, LAYERS, address, parse_address
from safety_regions.units.granularity import GRANULARITIES


def some_units(
    backbone: Backbone, granularity: str = "weight", scope: str = "matrix", share: float = 0.2, seed: int = 0
) -> Region | Subspaces:
    """A region in which every unit lies with probability ``share``; of the few heads, half and the last one.

    Of ranks, a random one with this share of them.
    """
    rng, kind = np.random.default_rng(seed), GRANULARITIES[granularity]
    if kind.subspaces:
        ranks = {where: min(shape) for where, shape in backbone.shapes.items()}
        bases = {
            where: outputs_of(weight)
            @ np.linalg.qr(rng.normal(size=(ranks[where], max(1, int(share * ranks[where])))))[0]
            for where, weight in backbone.weights()
        }
        return Subspaces.raw(bases, ranks, {"granularity": granularity, "scope": scope, "fraction": share})
    if kind.whole_layers:
        flags = {LAYERS: np.arange(len(backbone.blocks)) == 1}
    elif granularity == "head":
        n = backbone.config.num_attention_heads
        flags = {
            address(i, HEADS): np.append(rng.random(n - 1) < 0.5, True) for i in range(len(backbone.blocks))
        }
    elif granularity == "neuron":
        flags = {
            where: rng.random(backbone.rows_of("up") if place == "down" else shape[0]) < share
            for where, shape in backbone.shapes.items()
            if (place := parse_address(where).projection) in kind.projections
        }
    else:
        flags = {where: rng.random(shape) < share for where, shape in backbone.shapes.items()}
    return Region.pack(flags, {"granularity": granularity, "scope": scope, "fraction": share})


def outputs_of(weight) -> np.ndarray:
    """Return an orthonormal basis of the outputs of a matrix."""
    return np.linalg.svd(weight.detach().double().numpy(), full_matrices=False)[0]
