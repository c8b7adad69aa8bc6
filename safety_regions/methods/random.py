"""Random: a data-free baseline that uses neither weights nor text.

    score_ij = uniform(0, 1), drawn independently for each set of prompts

The option ``seed`` and the ids of the prompts seed the draw. Different datasets, halves and pools therefore have
independent scores, and the IoU of two of their regions measures the chance level.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "Random",
    "granularity": "weight",
    "data_free": True,
    "selections": ["row-0.05"],
    "options": {
        "seed": {"type": "integer", "minimum": 0, "default": 0, "description": "seed of the random scores"}
    },
    "presets": {},
}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Draw the scores: address -> (out, in), uniform in [0, 1)."""
    return _drawn(backbone.shapes, samples.identification, options)


def merge(
    evidence: Evidence, more: Evidence, samples: tuple[Sequence[Sample], Sequence[Sample]], options: dict
) -> Evidence:
    """Draw anew for all prompts together, because draws do not add up."""
    shapes = {address: list(values.shape) for address, values in evidence.items()}
    return _drawn(shapes, [*samples[0], *samples[1]], options)


def _drawn(shapes: Mapping[str, list[int]], samples: Sequence[Sample], options: dict) -> Evidence:
    who = " ".join([str(options["seed"]), *sorted(sample.prompt_id for sample in samples)])
    return {address: _uniform(f"{who} {address}", shape) for address, shape in shapes.items()}


def _uniform(key: str, shape: list[int]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """The scores that `gather` drew."""
    yield from evidence.items()
