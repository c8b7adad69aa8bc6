"""What a job that loads a backbone asks of a machine: memory, GPUs and time, from the backbone's card.

    memory = attempt * (4000 MB + parameters * bytes),   bytes = weights + 1 (activations) + kept sums

Weights take 4 bytes a parameter in float32, 2 in bfloat16 and float16. A method of weights keeps one float32 sum for
each (4 bytes), unless it keeps a vector or a small matrix for each layer (CARD: ``streams``). An organism takes
2000 MB. The same is asked of the host and, to count GPUs, of the device, so that a job fits with and without one. SNIP
on an 8B Llama in bfloat16: 4 + 8 * 7 = 60 GB, one GPU of 80 GB; the 14B Qwen takes two.

Requests, not measurements: generous, and a profile's ``set-resources`` overrides them. A scoring job given less memory
than this plans to hold no more than it was given (`safety_regions.scoring.memory`). Nothing here decides a number.
"""

from math import ceil
from pathlib import Path
from typing import NamedTuple

from safety_regions.study.method_shelf import granularity_of, method_cards

ORGANISM_MB, CHECKPOINT_MB = 2000, 4000
GPU_MB = 80_000
WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
ACTIVATIONS = 1
# Of a checkpoint on the Hub whose card does not tell its size.
ASSUMED_PARAMETERS = 8e9


class Minutes(NamedTuple):
    """Wall time of a rule: of any backbone, and on top of it for each 1e9 parameters."""

    least: int
    per_billion: int


MINUTES = {
    "train_organism": Minutes(20, 0),
    "write_responses": Minutes(30, 15),
    "train_adapter": Minutes(60, 30),
    "score": Minutes(30, 15),
    "sweep": Minutes(60, 30),
}


def parameters(card: dict) -> float:
    """Number of parameters of a checkpoint: its card's, or 16 bits of its local files each; 0 for an organism."""
    if card["kind"] == "organism":
        return 0
    if "parameters" in card:
        return card["parameters"]
    files = Path(card["path"]).glob("*.safetensors") if "path" in card else ()
    return sum(file.stat().st_size for file in files) / 2 or ASSUMED_PARAMETERS


def kept_bytes(method: str) -> int:
    """Bytes a method's module keeps for each parameter of the backbone."""
    return 0 if method_cards()[method]["streams"] else granularity_of(method).bytes_per_parameter


def memory_mb(card: dict, attempt: int = 1, kept: int = 0) -> int:
    """Memory of a job that loads the backbone and keeps ``kept`` bytes a parameter, MB; more with every attempt."""
    if card["kind"] == "organism":
        return ORGANISM_MB * attempt
    held = WIDTH[card.get("dtype", "float32")] + ACTIVATIONS + kept
    return attempt * (CHECKPOINT_MB + ceil(parameters(card) * held / 1e6))


def regions_mb(card: dict, regions: int, attempt: int = 1) -> int:
    """Memory of a job that holds so many regions of the backbone's weights, a bit a weight, MB."""
    if card["kind"] == "organism":
        return ORGANISM_MB * attempt
    return attempt * (CHECKPOINT_MB + ceil(regions * parameters(card) / 8 / 1e6))


def gpus(card: dict, kept: int = 0) -> int:
    """GPUs of 80 GB the backbone is spread over: none for an organism, one or more for a checkpoint."""
    return 0 if card["kind"] == "organism" else ceil(memory_mb(card, kept=kept) / GPU_MB)


def minutes(rule: str, card: dict, attempt: int = 1) -> int:
    """Wall time of a rule on the backbone, minutes; more with every attempt."""
    least, per_billion = MINUTES[rule]
    return attempt * (least + ceil(per_billion * parameters(card) / 1e9))
