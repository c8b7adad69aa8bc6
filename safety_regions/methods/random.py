"""Random: a blind reference that sees neither weights nor text.

    score_ij = uniform(0, 1), drawn anew for every set of prompts

The draw is fixed by the seed and the ids of the prompts, so another dataset, half or pool has independent
scores and the IoU of two of its regions is the chance level, measured.
"""

import zlib
from collections.abc import Iterator

import torch
from torch import Tensor

from safety_regions.model.backbone import Backbone
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "Random",
    "granularity": "weight",
    "data_free": True,
    "selections": ["row-0.05"],
    "options": {
        "seed": {"type": "integer", "minimum": 0, "default": 0, "description": "another seed, another draw"}
    },
    "presets": {},
}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """The draw: address -> (out, in), uniform in [0, 1)."""
    who = " ".join([str(options["seed"]), *sorted(sample.prompt_id for sample in samples.identification)])
    return {address: _uniform(f"{who} {address}", shape) for address, shape in backbone.shapes.items()}


def _uniform(key: str, shape: list[int]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """The draw itself."""
    yield from evidence.items()
