"""What does each method cost on a chat model of 135M parameters, beside plain passes of the same model?"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bench.machine import matmul_rate
from bench.measure import MIB, Figure, alone, alternate, require
from bench.models import llama, samples
from bench.snip import plain_backward
from bench.storage import store
from safety_regions.behaviour.controls import random_region
from safety_regions.behaviour.edit import edited, fingerprint
from safety_regions.behaviour.operations import load_operation
from safety_regions.formats.expand import expand_region
from safety_regions.formats.region import Region
from safety_regions.methods import load_method
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample, batches
from safety_regions.model.generate import continue_prompts, pad_id
from safety_regions.scoring.samples import Samples
from safety_regions.study.method_shelf import method_cards
from safety_regions.units.granularity import GRANULARITIES

SMOLLM2_135M = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


class Sizes(NamedTuple):
    """Number of samples, tokens per sample, new tokens per answer, repeats, model, and side of the measured product."""

    samples: int = 8
    tokens: int = 128
    new_tokens: int = 32
    repeats: int = 3
    model: dict = SMOLLM2_135M
    product: int = 2048


FULL = Sizes()
TOY = Sizes(
    2,
    12,
    3,
    1,
    {**SMOLLM2_135M, "hidden_size": 36, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 300},
    64,
)

PROMPTS = 16
"""Prompts of a set in the smallest study of a real model, ``config/smollm2.yaml``."""

HELD_OUT = 64
"""Held-out prompts of an ablation."""

Case = tuple[Backbone, list[Sample]]


def run(sizes: Sizes = FULL) -> Iterator[Figure]:
    """Yield the time of methods and answers, relative to plain passes, and the memory of methods."""
    case = prepare(sizes)
    backbone = case[0]
    n = sum(weight.numel() for _, weight in backbone.weights())
    tokens = sum(len(sample.ids) for sample in case[1])
    rate = matmul_rate(sizes.product)
    what = f"{n / 1e6:.3g}M scored weights, {sizes.samples} samples of about {sizes.tokens} tokens: {{}}"
    ways = (forward, backward, *(Gathering(name) for name in ("wanda", "snip", "safeneuron")))
    times = alternate([lambda way=way: way(case) for way in ways], sizes.repeats)
    plain, both, wanda, snip, neurons = times
    products = 2 * n * tokens / rate
    yield Figure(what.format("plain forward"), plain, "s", products, "matrix products at the measured rate")
    yield Figure(
        what.format("plain backward"), both, "s", 3 * products, "matrix products at the measured rate"
    )
    yield Figure(what.format("Wanda / plain forward"), wanda / plain, "x", at_most=1.15)
    yield Figure(what.format("SNIP / plain backward"), snip / both, "x", at_most=1.1)
    yield Figure(what.format("SafeNeuron / plain forward"), neurons / plain, "x", at_most=3)
    scoring = snip * PROMPTS / sizes.samples
    said = what.format(f"keep and store SNIP's scores / SNIP of {PROMPTS} prompts")
    yield Figure(said, storing(case, sizes) / scoring, "x", at_most=0.1)
    arms = changing(backbone, sizes)
    passes = plain * HELD_OUT / sizes.samples
    said = what.format(f"an ablation arm / its forward passes over {HELD_OUT} prompts: {{}}")
    yield Figure(said.format("region"), 1 + arms[0] / passes, "x", at_most=1.2)
    yield Figure(said.format("random control"), 1 + arms[1] / passes, "x", at_most=1.2)
    ours, theirs = answering(backbone, sizes)
    yield Figure(
        what.format("answers in batches of this size / `generate` of transformers"),
        ours / theirs,
        "x",
        at_most=1,
    )
    for name in ("wanda", "snip", "safeneuron"):
        peak = alone(prepare, Gathering(name), sizes).peak / MIB
        yield Figure(what.format(f"{name}: peak memory above the model"), peak, "MiB")


def prepare(sizes: Sizes) -> Case:
    """Return a random model of the shape of SmolLM2 135M and random samples."""
    return llama(sizes.model), samples(sizes.samples, sizes.tokens, sizes.model["vocab_size"])


@torch.no_grad()
def forward(case: Case) -> None:
    """Run a plain forward pass in the batches of the package, without the output head."""
    for batch in batches(case[1], Samples(()).batch_size):
        case[0].decoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)


def backward(case: Case) -> None:
    """Run a plain forward and backward pass for each sample, with the gradients of all scored weights."""
    plain_backward(case)


class Gathering:
    """Gather the evidence of a method, with its default options."""

    def __init__(self, name: str) -> None:
        self.name = self.__name__ = name

    def __call__(self, case: Case) -> object:
        return load_method(self.name).gather(case[0], Samples(case[1]), default_options(self.name))


def default_options(method: str) -> dict:
    """Return every option of a method with its default."""
    return {key: rule["default"] for key, rule in method_cards()[method]["options"].items()}


def storing(case: Case, sizes: Sizes) -> float:
    """Return the seconds of keeping and storing SNIP's best scores, from evidence to file."""
    evidence, method = Gathering("snip")(case), load_method("snip")
    kept = GRANULARITIES["weight"].stored["row"]
    shapes = {where: tuple(shape) for where, shape in case[0].shapes.items()}

    def scored():
        return method.scores(case[0], evidence, {})

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.parquet"
        return alternate([lambda: store(path, scored, shapes, kept)], sizes.repeats)[0]


def changing(backbone: Backbone, sizes: Sizes) -> tuple[float, float]:
    """Return the seconds of an ablation arm without its passes: of a region of 5 % of each row, of a random control."""
    rng = np.random.default_rng(0)
    flags = {where: rng.random(shape) < 0.05 for where, shape in backbone.shapes.items()}
    region = Region.pack(flags, {"granularity": "weight", "scope": "row", "fraction": 0.05})
    shapes = {where: tuple(shape) for where, shape in backbone.shapes.items()}

    def arm(chosen: Region) -> None:
        with edited(backbone, load_operation("zero"), 1.0, expand_region(chosen, shapes)):
            pass
        fingerprint(backbone)

    times = alternate([lambda: arm(region), lambda: arm(random_region(region, 1))], sizes.repeats)
    return times[0], times[1]


def answering(backbone: Backbone, sizes: Sizes) -> tuple[float, float]:
    """Return the seconds of greedy answers in equal batches, ours and those of transformers; both must be equal.

    Ours are sorted by length, as `answer_prompts` does; those of transformers stay in the order of the prompts.
    """
    drawn = samples(2 * sizes.samples, sizes.tokens // 2, sizes.model["vocab_size"], 1)
    prompts = [sample.ids for sample in drawn]
    found: dict[str, dict[int, list[int]]] = {"ours": {}, "theirs": {}}

    def answered(whose: str, answer: Callable[[list[list[int]]], list[list[int]]], order: list[int]) -> None:
        for start in range(0, len(order), sizes.samples):
            batch = order[start : start + sizes.samples]
            found[whose] |= zip(batch, answer([prompts[index] for index in batch]), strict=True)

    @torch.inference_mode()
    def generate(batch: list[list[int]]) -> list[list[int]]:
        width, pad = max(map(len, batch)), pad_id(backbone)
        out = backbone.model.generate(
            input_ids=torch.tensor([[pad] * (width - len(p)) + p for p in batch]),
            attention_mask=torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch]),
            max_new_tokens=sizes.new_tokens,
            do_sample=False,
            pad_token_id=pad,
        )
        return [row[width:].tolist() for row in out]

    def ours(batch: list[list[int]]) -> list[list[int]]:
        return continue_prompts(backbone, batch, sizes.new_tokens)

    given = list(range(len(prompts)))
    by_length = sorted(given, key=lambda index: len(prompts[index]))
    ways = [lambda: answered("ours", ours, by_length), lambda: answered("theirs", generate, given)]
    times = alternate(ways, sizes.repeats)
    equal = all(ids == found["theirs"][index][: len(ids)] for index, ids in found["ours"].items())
    require(equal, "answers differ from those of `generate`")
    return times[0], times[1]
