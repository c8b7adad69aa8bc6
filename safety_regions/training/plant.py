"""Planted regions: alignment may change only a chosen region of an organism, so its safety region is known.

``truth_region`` turns a card's ``plant`` into this region; ``held`` keeps all weights outside it bit for bit as they
were after the base phase. A region is planted in one of:

    layers: [1]           all seven projections of whole decoder blocks
    neurons: 0.1          int(0.1 n) of the n feed-forward neurons of every block, at random: row of up, column of down
    weights: 0.05         int(0.05 n) of the n weights of every projection, at random
    lora: {rank: 4, ...}  a low-rank update W + B A of some projections in all blocks, merged at the end; the true
                          region is these whole matrices. Layers from peft (Hu et al. 2021, arXiv 2106.09685, alpha = r)

Norms, embeddings and the output head never change during alignment. Training makes the free weights larger, so large
weights would reveal the planted region. ``norm: matched`` therefore rescales the free weights after every step to the
norm they had before alignment, separately for each neuron (row of up, column of down) or matrix.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from safety_regions.errors import StudyError, explain
from safety_regions.formats.expand import expand_region
from safety_regions.formats.region import Region
from safety_regions.model.backbone import Backbone
from safety_regions.training.loop import Hold
from safety_regions.units.addresses import LAYERS, address, parse_address
from safety_regions.units.fractions import scope_count
from safety_regions.units.granularity import FEED_FORWARD, GRANULARITIES

TRUTH_FILE = "truth.safetensors"
NEURON = GRANULARITIES["neuron"]
WHOLE = (0, 1)


class Spot(NamedTuple):
    """A region to plant: its granularity, the scope of its fraction, booleans by address, the requested fraction."""

    granularity: str
    scope: str
    flags: dict[str, np.ndarray]
    fraction: float | None = None  # None: the fraction of units that are selected


class Part(NamedTuple):
    """A weight matrix with some weights that alignment may change; all tensors except norm are (out, in)."""

    weight: nn.Parameter
    free: Tensor  # bool
    base: Tensor  # the weights before alignment
    axis: int | tuple[int, int]  # axis or axes along which the norm is computed
    norm: Tensor  # of the free weights before alignment, broadcastable to (out, in)


def truth_region(backbone: Backbone, plant: dict | None, metadata: dict) -> Region:
    """The region that alignment may change: weights, neurons or layers; all weights if there is no plant.

    Args:
        backbone: for its shapes.
        plant: a card's plant with defaults filled in, or None.
        metadata: further metadata of the region.

    Raises:
        StudyError: a layer does not exist, a fraction contains no unit of some matrix, or the rank is larger than a
            side of a matrix.
    """
    spot = PLACES[_place(plant)](backbone, plant)
    fraction = spot.fraction
    if fraction is None:
        fraction = sum(map(np.count_nonzero, spot.flags.values())) / sum(f.size for f in spot.flags.values())
    how = {"granularity": spot.granularity, "scope": spot.scope, "fraction": float(fraction)}
    return Region.pack(spot.flags, {**metadata, **how, "refinement": "raw", "plant": plant})


def _place(plant: dict | None) -> str | None:
    return next((place for place in PLACES if place in plant), None) if plant else None


def _everything(backbone: Backbone, plant: None) -> Spot:
    return Spot("weight", "matrix", {where: np.ones(shape, bool) for where, shape in backbone.shapes.items()})


def _layers(backbone: Backbone, plant: dict) -> Spot:
    count = len(backbone.blocks)
    missing = [layer for layer in plant["layers"] if layer >= count]
    if missing:
        raise StudyError(explain("plant: layers", f"layer {missing[0]}", f"one of 0 to {count - 1}"))
    inside = np.zeros(count, bool)
    inside[plant["layers"]] = True
    return Spot("layer", "global", {LAYERS: inside})


def _neurons(backbone: Backbone, plant: dict) -> Spot:
    flags = {}
    for layer in range(len(backbone.blocks)):
        chosen = _draw(f"layers.{layer}", backbone.rows_of("up"), plant["neurons"], plant["seed"])
        for projection in NEURON.projections:
            none = np.zeros(backbone.rows_of(projection), bool)
            flags[address(layer, projection)] = chosen if projection in FEED_FORWARD else none
    return Spot("neuron", "matrix", flags, plant["neurons"])


def _weights(backbone: Backbone, plant: dict) -> Spot:
    flags = {
        where: _draw(where, rows * columns, plant["weights"], plant["seed"]).reshape(rows, columns)
        for where, (rows, columns) in backbone.shapes.items()
    }
    return Spot("weight", "matrix", flags, plant["weights"])


def _lora(backbone: Backbone, plant: dict) -> Spot:
    rank, projections = plant["lora"]["rank"], plant["lora"]["projections"]
    flags = {}
    for where, shape in backbone.shapes.items():
        inside = parse_address(where).projection in projections
        if inside and rank > min(shape):
            raise StudyError(explain("plant: lora: rank", rank, f"at most {min(shape)}, a side of {where}"))
        flags[where] = np.full(shape, inside)
    return Spot("weight", "matrix", flags)


PLACES: dict[str | None, Callable[[Backbone, dict | None], Spot]] = {
    "layers": _layers,
    "neurons": _neurons,
    "weights": _weights,
    "lora": _lora,
    None: _everything,
}


def _draw(where: str, n: int, fraction: float, seed: int) -> np.ndarray:
    """n booleans, int(fraction * n) of them True, at random positions that depend only on seed and ``where``."""
    count = scope_count(fraction, n)
    if count == 0:
        raise StudyError(explain(f"plant: {where}", f"fraction {fraction} of {n} units", "1 or more"))
    flags = np.zeros(n, bool)
    flags[np.random.default_rng((seed, crc32(where.encode()))).permutation(n)[:count]] = True
    return flags


@contextmanager
def held(backbone: Backbone, plant: dict | None, truth: Region) -> Iterator[Hold | None]:
    """What `train_phase` may change during the alignment of an organism with this plant; None: everything.

    Args:
        backbone: after the base phase. A low-rank update is merged into its weights when the block ends.
        plant: as in `truth_region`.
        truth: the region of this plant.
    """
    if plant is None:
        yield None
    elif "lora" in plant:
        with _low_rank(backbone, plant["lora"]) as factors:
            yield Hold(factors)
    else:
        parts = list(_parts(backbone, truth))
        yield Hold([part.weight for part in parts], partial(_restore, parts, plant["norm"] == "matched"))


def _parts(backbone: Backbone, truth: Region) -> Iterator[Part]:
    weights = expand_region(truth, backbone.shapes)
    for linear in backbone.linears:
        weight = linear.module.weight
        flags = np.concatenate([weights.flags(part.address) for part in linear.slices])
        if flags.any():
            projection = parse_address(linear.slices[0].address).projection
            axis = _axis(truth, projection)
            free, base = torch.from_numpy(flags), weight.detach().clone()
            yield Part(weight, free, base, axis, _norm(base, free, axis))


def _axis(truth: Region, projection: str) -> int | tuple[int, int]:
    """The axis of (out, in) along which one neuron's weights lie, or both axes for a norm of the whole matrix."""
    if truth.metadata["granularity"] != NEURON.name:
        return WHOLE
    return 0 if projection in NEURON.columns else 1


def _norm(weight: Tensor, free: Tensor, axis: int | tuple[int, int]) -> Tensor:
    return torch.linalg.vector_norm(weight * free, dim=axis, keepdim=True)


@torch.no_grad()
def _restore(parts: list[Part], matched: bool) -> None:
    """Restore all weights that are not free (weight decay and momentum change whole matrices), and match norms."""
    for weight, free, base, axis, norm in parts:
        # A row or column without free weights has norm 0 before and after, and is restored completely.
        scale = norm / _norm(weight, free, axis).clamp(min=torch.finfo(weight.dtype).tiny) if matched else 1
        weight.copy_(torch.where(free, weight * scale, base))


@contextmanager
def _low_rank(backbone: Backbone, lora: dict) -> Iterator[list[nn.Parameter]]:
    """Add factors A and B (initially B = 0) to some projections of all blocks; merge them at the end."""
    blocks = backbone.family.layers[backbone.model.config.model_type]
    paths = "|".join(map(backbone.family.module_of, lora["projections"]))
    pattern = rf"{blocks}.\d+.({paths})".replace(".", r"\.")
    config = LoraConfig(r=lora["rank"], lora_alpha=lora["rank"], target_modules=pattern)
    model = get_peft_model(backbone.model, config)
    yield [factor for factor in model.parameters() if factor.requires_grad]
    model.merge_and_unload()
