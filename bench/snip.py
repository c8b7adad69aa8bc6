"""Is SNIP in one pass for all layers faster than the published procedure and than a plain backward pass?"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from bench.machine import copy_rate, matmul_rate
from bench.measure import MIB, Figure, alone, alternate, require, seconds
from bench.models import SMALL, llama, samples
from safety_regions.methods import snip
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.samples import Samples

OPTIONS = {"loss": "mean", "accumulator": "float32"}
BATCH = Samples(()).batch_size
TOLERANCE = 1e-4


class Sizes(NamedTuple):
    """Compared depths, number of samples, approximate tokens per sample, repeats of the fast implementations, model.

    ``product`` is the side of the matrices, and ``copied`` the number of bytes, that measure the machine's rates.
    """

    layers: tuple[int, ...] = (8, 16, 24)
    samples: int = 8
    tokens: int = 64
    repeats: int = 8
    model: dict = SMALL
    product: int = 2048
    copied: int = 1 << 28


FULL = Sizes()
TOY = Sizes((2,), 3, 12, 1, SMALL | {"hidden_size": 32, "intermediate_size": 48, "vocab_size": 300}, 64, 4096)

Case = tuple[Backbone, list[Sample]]


def run(sizes: Sizes = FULL) -> Iterator[Figure]:
    """Yield times and differences at each depth, and peak memory at the last depth."""
    rates = matmul_rate(sizes.product), copy_rate(sizes.copied)
    yield Figure(f"product of two {sizes.product}-square float32 matrices", rates[0] / 1e9, "GFLOP/s")
    yield Figure(f"copy of {sizes.copied / MIB:.2g} MiB, read and written", rates[1] / 1e9, "GB/s")
    for depth in sizes.layers:
        case = prepare(sizes, depth)
        yield Figure(
            f"SNIP, {depth} layers: largest difference, relative to the largest score", compare(case), "", 0
        )
        ways = (one_pass, one_by_one, plain_backward)
        one, single, plain = alternate([lambda case=case, way=way: way(case) for way in ways], sizes.repeats)
        slow = seconds(lambda case=case: layer_by_layer(case), 2)
        what = f"SNIP, {depth} layers: time of {{}} / time of one pass"
        yield Figure(what.format("layer by layer"), slow / one, "x", at_least=0.5 * depth)
        yield Figure(what.format("plain backward of one sample"), plain / one, "x", at_least=1)
        yield Figure(what.format("plain backward of one sample") + ", batches of 1", plain / single, "x")
        yield Figure(f"SNIP, {depth} layers: one pass", one, "s", *least_seconds(case, *rates))
    least = 4 * sum(weight.numel() for _, weight in case[0].weights()) / MIB
    what = f"SNIP, {sizes.layers[-1]} layers: peak memory above the model, {{}}"
    theirs = peak(plain_backward, sizes)
    yield Figure(what.format("plain backward"), theirs, "MiB", 2 * least, "sums and gradients")
    one = peak(one_by_one, sizes)
    yield Figure(what.format("one pass, batches of 1"), one, "MiB", least, "sums", at_most=theirs)
    yield Figure(what.format(f"one pass, batches of {BATCH}"), peak(one_pass, sizes), "MiB", least, "sums")


def least_seconds(case: Case, multiplied: float, moved: float) -> tuple[float, str]:
    """Return a lower bound of SNIP's seconds at the machine's rates, and what limits it.

    Each weight and token needs 6 operations (2 forward, 2 backward, 2 for the gradient). Each weight and sample needs
    one float32 sum read and written, if gradients stay in the cache.
    """
    n = sum(weight.numel() for _, weight in case[0].weights())
    tokens = sum(len(sample.ids) for sample in case[1])
    products, sums = 6 * n * tokens / multiplied, 8 * n * len(case[1]) / moved
    return max(
        (products, "the scored layers' matrix products at that rate"), (sums, "reading and writing the sums")
    )


def prepare(sizes: Sizes, depth: int) -> Case:
    """Return a random model and random samples."""
    model = sizes.model | {"num_hidden_layers": depth}
    return llama(model), samples(sizes.samples, sizes.tokens, model["vocab_size"])


def peak(way: Callable[[Case], Evidence], sizes: Sizes) -> float:
    """Return the peak memory of an implementation at the last depth, in MiB above that of model and samples."""
    return alone(prepare, way, sizes, sizes.layers[-1]).peak / MIB


def compare(case: Case) -> float:
    """Return the largest difference between the implementations' scores, relative to the largest of its matrix."""
    backbone, worst = case[0], 0.0
    ours = dict(snip.scores(backbone, one_pass(case), OPTIONS))
    for evidence in (layer_by_layer(case), plain_backward(case)):
        require(ours.keys() == evidence.keys(), "SNIP implementations score different addresses")
        for where, weight in backbone.weights():
            theirs = weight.abs() * evidence[where]
            require(float(theirs.max()) > 0, f"no SNIP score of {where} is above 0")
            worst = max(worst, float((ours[where] - theirs).abs().max() / theirs.max()))
    require(worst < TOLERANCE, f"SNIP implementations differ by {worst:.1e}, relative to the largest score")
    return worst


def one_pass(case: Case, batch_size: int = BATCH) -> Evidence:
    """Gather evidence as the package does."""
    return snip.gather(case[0], Samples(case[1], batch_size=batch_size), OPTIONS)


def one_by_one(case: Case) -> Evidence:
    """Gather evidence as the package does, with one sample per batch as in `plain_backward`."""
    return one_pass(case, 1)


def layer_by_layer(case: Case) -> Evidence:
    """Follow the published procedure: for each layer, run a forward and a backward pass for each sample.

    Source: boyiwei/alignment-attribution-code, lib/model_wrapper.py 241-318. The backward pass ends at the lowest layer
    whose weights require a gradient, so upper layers cost less than lower ones. Sums are divided by the number of
    samples here.
    """
    backbone, chosen = case
    return {
        where: mean
        for layer in range(len(backbone.blocks))
        for where, mean in _by_gradients(backbone, chosen, [layer]).items()
    }


def plain_backward(case: Case) -> Evidence:
    """Run one forward and one backward pass for each sample; autograd computes the gradients of all weights."""
    backbone, chosen = case
    return _by_gradients(backbone, chosen, range(len(backbone.blocks)))


def _by_gradients(backbone: Backbone, chosen: list[Sample], layers) -> Evidence:
    model, scored = backbone.model, [linear for linear in backbone.linears if linear.layer in layers]
    total = [torch.zeros_like(linear.module.weight) for linear in scored]
    for linear in scored:
        linear.module.weight.requires_grad_(True)
    for sample in chosen:
        model.zero_grad()
        ids = torch.tensor([sample.ids])
        labels = ids.masked_fill(torch.arange(ids.shape[1]) < sample.prompt_length, -100)
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        for into, linear in zip(total, scored, strict=True):
            into += linear.module.weight.grad.abs()
    model.zero_grad()
    model.requires_grad_(False)
    return {
        where: (into / len(chosen))[start:stop]
        for into, linear in zip(total, scored, strict=True)
        for where, start, stop in linear.slices
    }
