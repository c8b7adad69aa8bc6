"""Plant: alignment may change a chosen region of an organism only, so its safety region is known.

``truth_region`` turns a card's ``plant`` into that region; ``held`` keeps everything outside it, bit for bit, at
what the base phase left there. Places:

    layers: [1]           all seven projections of whole decoder blocks
    neurons: 0.1          int(0.1 n) of the n feed-forward neurons of every block, at random: row of up, column of down
    weights: 0.05         int(0.05 n) of the n weights of every projection, at random
    lora: {rank: 4, ...}  a low-rank update W + B A of some projections in all blocks, merged at the end; the truth
                          is these matrices whole. The layers are peft's (Hu et al. 2021, arXiv 2106.09685, alpha = r)

Norms, embeddings and the output head are never free. Training enlarges what it may change, so large weights would
tell where the plant is: ``norm: matched`` rescales the free weights after every step to the norm they had
before alignment, neuron by neuron (row of up and column of down each its own) or matrix by matrix.
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
from safety_regions.units.granularity import GRANULARITIES

TRUTH_FILE = "truth.safetensors"
NEURON = GRANULARITIES["neuron"]
# Projections that hold the feed-forward neurons: one of up and the same of down.
FEED_FORWARD = ("up", "down")
WHOLE = (0, 1)


class Spot(NamedTuple):
    """A region to be: its granularity, the scope that holds its size, booleans by address, fraction as asked for."""

    granularity: str
    scope: str
    flags: dict[str, np.ndarray]
    fraction: float | None = None  # None: the share of units that came out


class Part(NamedTuple):
    """A weight matrix of which alignment may change some: all tensors (out, in), but for norm."""

    weight: nn.Parameter
    free: Tensor  # bool
    base: Tensor  # the weights before alignment
    axis: int | tuple[int, int]  # weights along it share a norm
    norm: Tensor  # of the free weights before alignment, broadcastable to (out, in)


def truth_region(backbone: Backbone, plant: dict | None, stamp: dict) -> Region:
    """The region that alignment is free to change: weights, neurons or layers; all weights without a plant.

    Args:
        backbone: gives the shapes.
        plant: a card's plant with its defaults filled in, or None.
        stamp: what else the region's stamp should say.

    Raises:
        StudyError: a layer that the backbone has not, a fraction that is none of some matrix's units, or a rank
            larger than a side of a matrix.
    """
    spot = PLACES[_place(plant)](backbone, plant)
    fraction = spot.fraction
    if fraction is None:
        fraction = sum(map(np.count_nonzero, spot.flags.values())) / sum(f.size for f in spot.flags.values())
    how = {"granularity": spot.granularity, "scope": spot.scope, "fraction": float(fraction)}
    return Region.pack(spot.flags, {**stamp, **how, "refinement": "raw", "plant": plant})


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
    """Booleans of which int(fraction * n) are True, drawn from the seed and the place alone."""
    count = scope_count(fraction, n)
    if count == 0:
        raise StudyError(explain(f"plant: {where}", f"fraction {fraction} of {n} units", "1 or more"))
    flags = np.zeros(n, bool)
    flags[np.random.default_rng((seed, crc32(where.encode()))).permutation(n)[:count]] = True
    return flags


@contextmanager
def held(backbone: Backbone, plant: dict | None, truth: Region) -> Iterator[Hold | None]:
    """What `train_phase` may change while an organism with this plant is aligned; None: everything.

    Args:
        backbone: as the base phase left it. A low-rank update is merged into its weights when the block ends.
        plant: as in `truth_region`.
        truth: the region of that plant.
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
    """The axes of (out, in) along which weights share a norm: those of one neuron, or the whole matrix."""
    if truth.stamp["granularity"] != NEURON.name:
        return WHOLE
    return 0 if projection in NEURON.columns else 1


def _norm(weight: Tensor, free: Tensor, axis: int | tuple[int, int]) -> Tensor:
    return torch.linalg.vector_norm(weight * free, dim=axis, keepdim=True)


@torch.no_grad()
def _restore(parts: list[Part], matched: bool) -> None:
    """Put what is not free back to its bits (weight decay and momentum move all of a matrix), and match norms."""
    for weight, free, base, axis, norm in parts:
        # A row or column without free weights has norm 0, then and now, and is put back whole.
        scale = norm / _norm(weight, free, axis).clamp(min=torch.finfo(weight.dtype).tiny) if matched else 1
        weight.copy_(torch.where(free, weight * scale, base))


@contextmanager
def _low_rank(backbone: Backbone, lora: dict) -> Iterator[list[nn.Parameter]]:
    """Factors A and B on some projections of all blocks, B = 0 at first; merged into the weights at the end."""
    blocks = backbone.family.layers[backbone.model.config.model_type]
    paths = "|".join(map(backbone.family.module_of, lora["projections"]))
    pattern = rf"{blocks}.\d+.({paths})".replace(".", r"\.")
    config = LoraConfig(r=lora["rank"], lora_alpha=lora["rank"], target_modules=pattern)
    model = get_peft_model(backbone.model, config)
    yield [factor for factor in model.parameters() if factor.requires_grad]
    model.merge_and_unload()
