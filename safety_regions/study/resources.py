"""Request memory, GPUs and time for a job that loads a backbone, based on the backbone's card.

    memory = attempt * (4000 MB + parameters * bytes),   bytes = weights + 1 (activations) + attribution statistics

Weights take 4 bytes per parameter in float32, 2 in bfloat16 and float16. A method that scores weights keeps one float32
statistic per weight (4 bytes), unless it keeps a vector or a small matrix per layer (CARD: ``streams``). An organism
that starts from nothing takes 2000 MB. The same amount is requested from the host and, to compute the number of GPUs,
from the device, so that a job fits with and without a GPU. Example: SNIP on an 8B Llama in bfloat16 takes 4 + 8 * 7 =
60 GB, one GPU of 80 GB; the 14B Qwen takes two.

These are generous requests, not measurements, and a profile's ``set-resources`` overrides them. A scoring job that is
given less memory limits what it holds at once (`safety_regions.scoring.memory`). Nothing here changes a result.
"""

from math import ceil
from pathlib import Path
from typing import NamedTuple

from safety_regions.study.method_shelf import granularity_of, method_cards

ORGANISM_MB, CHECKPOINT_MB = 2000, 4000
GPU_MB = 80_000
WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
ACTIVATIONS = 1
# For a checkpoint on the Hub whose card does not give its size.
ASSUMED_PARAMETERS = 8e9


BASE_BYTES = 4  # per parameter of a base that a method compares with, in float32
TRAINING_BYTES = 16
"""Bytes per parameter in training: its gradient, two moments of AdamW, and its value before."""

ABLATION_BYTES = 13
"""Bytes per parameter of an ablation: the base, what an operation overwrites, masks, and one projection in float32."""


class Minutes(NamedTuple):
    """Wall time of a rule in minutes: a minimum, plus an amount per 1e9 parameters."""

    least: int
    per_billion: int


MINUTES = {
    "convert_gguf": Minutes(30, 15),
    "train_organism": Minutes(20, 600),
    "write_responses": Minutes(30, 15),
    "train_adapter": Minutes(60, 30),
    "score": Minutes(30, 15),
    "score_frame": Minutes(30, 45),  # a set and its halves
    "permute_labels": Minutes(60, 300),  # about twenty splits
    "sweep": Minutes(60, 30),
    "constrain": Minutes(60, 600),  # some ten fine-tuned models
    "export_model": Minutes(30, 15),
    "write_change": Minutes(30, 60),  # a singular value decomposition of every projection
    "judge_answers": Minutes(30, 60),  # some dozen models' answers
    "ablate": Minutes(60, 300),  # some hundred passes over the held-out prompts
}


def is_tiny(card: dict) -> bool:
    """Whether the backbone is an organism that starts from nothing."""
    return card["kind"] == "organism" and "base_card" not in card


def batch_size(card: dict) -> int:
    """Chats in one pass over held-out prompts. A pass over a tiny backbone takes about as long for 64 as for 16."""
    return 64 if is_tiny(card) else 16


def training_threads(card: dict) -> int:
    """Threads that train an organism. Sums depend on this number, so it is fixed, whatever the machine has."""
    return 1 if is_tiny(card) else 2


def parameters(card: dict) -> float:
    """Number of parameters of a backbone, from its card or its local files (16 bits each, in a GGUF file 4).

    0 for an organism that starts from nothing; for another one, those of its base.
    """
    if is_tiny(card):
        return 0
    card = card.get("base_card", card) if card["kind"] == "organism" else card
    if "parameters" in card:
        return card["parameters"]
    files = list(Path(card["path"]).glob("*.safetensors")) if "path" in card else []
    gguf = card.get("gguf", {}).get("path")  # four bits each or more: twice its bytes are enough
    size = 4 * Path(gguf).stat().st_size if gguf else sum(file.stat().st_size for file in files)
    return size / 2 or ASSUMED_PARAMETERS


def kept_bytes(method: str) -> int:
    """Bytes of attribution statistics that a method (by its module) keeps per parameter of the backbone."""
    return 0 if method_cards()[method]["streams"] else granularity_of(method).bytes_per_parameter


def memory_mb(card: dict, attempt: int = 1, kept: int = 0) -> int:
    """Memory in MB of a job that loads the backbone and keeps ``kept`` bytes per parameter; grows with each attempt."""
    if is_tiny(card):
        return ORGANISM_MB * attempt
    held = WIDTH[card.get("dtype", "float32")] + ACTIVATIONS + kept
    return attempt * (CHECKPOINT_MB + ceil(parameters(card) * held / 1e6))


def regions_mb(card: dict, regions: int, attempt: int = 1) -> int:
    """Memory of a job that holds so many regions of the backbone's weights, a bit a weight, MB."""
    if is_tiny(card):
        return ORGANISM_MB * attempt
    return attempt * (CHECKPOINT_MB + ceil(regions * parameters(card) / 8 / 1e6))


def gpus(card: dict, kept: int = 0) -> int:
    """Number of 80 GB GPUs over which the backbone is spread: 0 for a tiny organism, 1 or more for others."""
    return 0 if is_tiny(card) else ceil(memory_mb(card, kept=kept) / GPU_MB)


def minutes(rule: str, card: dict, attempt: int = 1) -> int:
    """Wall time of a rule on the backbone in minutes; grows with each attempt."""
    least, per_billion = MINUTES[rule]
    return attempt * (least + ceil(per_billion * parameters(card) / 1e9))
