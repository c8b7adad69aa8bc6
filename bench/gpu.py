"""What does it cost to score a Llama-3-8B on a GPU, how close is this to the GPU's limits, and are the scores right?

This benchmark has never run on a GPU. tests/test_bench.py runs its code at toy sizes on the CPU. The kernel of
bench/fused.py runs there only in Triton's interpreter (see bench/fused.py) and is otherwise skipped.
"""

import importlib
import importlib.util
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from bench.machine import matmul_rate
from bench.measure import Figure, require
from bench.models import LLAMA_3_8B, SMALL, llama, samples
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.keep import as_table, keep_top
from safety_regions.scoring.passes import watch_gradients
from safety_regions.scoring.samples import Samples
from safety_regions.study.method_shelf import granularity_of, method_cards, method_module

GIB = 1 << 30
TOLERANCE = 1e-3
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton runs kernels on the CPU, slowly: for tests


class Way(NamedTuple):
    """What a method does: operations per weight and token in the scored layers, the tokens it reads, what it stores.

    The forward pass, the gradients of inputs and the gradients of weights take 2 operations each.
    """

    operations: int
    reads: str
    kept: dict[str, float]


WAYS = {
    "snip": Way(6, "all", {"row": 0.05}),
    "signed_snip": Way(6, "all", {"row": 0.05}),
    "wanda": Way(2, "all", {"row": 0.05}),
    "safeneuron": Way(2, "prompt", {"matrix": 1.0}),
    "cna": Way(2, "prompt", {"matrix": 1.0}),
    "effectsize": Way(2, "prompt", {"matrix": 1.0}),
}


class Sizes(NamedTuple):
    """Device, timed model and samples, model that is compared with the CPU, and side of the matrices for the rate."""

    device: str = "cuda"
    model: dict = LLAMA_3_8B
    samples: int = 128
    tokens: int = 200
    small: dict = SMALL
    product: int = 8192


FULL = Sizes()
_TINY = SMALL | {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 300}
TOY = Sizes("cpu", _TINY, 4, 16, _TINY, 256)


def run(sizes: Sizes = FULL) -> Iterator[Figure]:
    """Yield agreement on a small model, then time, share of the matmul rate and memory per method on a large one."""
    if sizes.device == "cuda" and not torch.cuda.is_available():
        yield Figure("GPU: skipped, torch finds none", None)
        return
    yield from agreement(sizes)
    rate = matmul_rate(sizes.product, torch.bfloat16, sizes.device)
    yield Figure(f"product of two {sizes.product}-square bfloat16 matrices", rate / 1e12, "TFLOP/s")
    backbone = llama(sizes.model, torch.bfloat16, sizes.device)
    chosen = samples(sizes.samples, sizes.tokens, sizes.model["vocab_size"])
    # Warm-up: the first call also loads kernels and allocates workspaces.
    gather("wanda", backbone, chosen[:1])
    for method, way in WAYS.items():
        yield from _figures(method, way, backbone, chosen, rate)
    yield from one_kernel(sizes, backbone, chosen, rate)


def _figures(
    method: str, way: Way, backbone: Backbone, chosen: list[Sample], rate: float
) -> Iterator[Figure]:
    on_gpu = backbone.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    gathering, evidence = _timed(lambda: gather(method, backbone, chosen), on_gpu)
    keeping, _ = _timed(lambda: keep(method, way, backbone, evidence), on_gpu)
    yield from _rates(method, gathering, way, backbone, chosen, rate)
    yield Figure(f"{method}: score and keep the best", keeping, "s")
    if on_gpu:
        size = sum(p.numel() * p.element_size() for p in backbone.model.parameters())
        size += sum(values.numel() * values.element_size() for values in evidence.values() if values.is_cuda)
        peak = torch.cuda.max_memory_allocated() / GIB
        yield Figure(f"{method}: peak memory", peak, "GiB", size / GIB, "model and evidence")


def _rates(
    name: str, taken: float, way: Way, backbone: Backbone, chosen: list[Sample], rate: float
) -> Iterator[Figure]:
    """Yield the seconds that gathering took, with a lower bound: its matrix products at the measured rate."""
    n = sum(weight.numel() for _, weight in backbone.weights())
    tokens = sum(s.prompt_length if way.reads == "prompt" else len(s.ids) for s in chosen)
    least = way.operations * n * tokens / rate
    what = f"{name}, {n:.1e} weights, {len(chosen)} samples: {{}}"
    yield Figure(what.format("gather"), taken, "s", least, "the scored layers' matrix products at that rate")
    yield Figure(what.format("share of the matmul rate"), 100 * least / taken, "%")


def one_kernel(sizes: Sizes, backbone: Backbone, chosen: list[Sample], rate: float) -> Iterator[Figure]:
    """Check SNIP in one kernel against `safety_regions.methods.snip` on the small model, then time it on the large one.

    Raises:
        ValueError: on the small model in float32 the two differ by more than `TOLERANCE`.
    """
    if importlib.util.find_spec("triton") is None or not (INTERPRETED or backbone.device.type == "cuda"):
        yield Figure("snip in one kernel: skipped, needs Triton and a GPU", None)
        return
    from bench.fused import FusedGradients

    def fused(model: Backbone, given: list[Sample]) -> Evidence:
        return watch_gradients(
            model, Samples(given), lambda layers: FusedGradients(layers, torch.float32), "mean", 4
        )

    small, few = llama_like(sizes, torch.float32), samples(8, sizes.tokens, sizes.small["vocab_size"])
    plain, found = gather("snip", small, few), fused(small, few)
    worst = max(_difference(found[where], values) for where, values in plain.items())
    require(worst < TOLERANCE, f"SNIP in one kernel differs by {worst:.1e} from the package's SNIP")
    yield Figure(
        "snip in one kernel, small model: float32 difference from the package's SNIP, relative to the largest value",
        worst,
        "",
        0,
    )
    if not INTERPRETED:
        fused(backbone, chosen[:1])  # compiles the kernel
    taken, _ = _timed(lambda: fused(backbone, chosen), backbone.device.type == "cuda")
    yield from _rates("snip in one kernel", taken, WAYS["snip"], backbone, chosen, rate)


def _timed(call, on_gpu: bool) -> tuple[float, object]:
    start = time.perf_counter()
    result = call()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def gather(method: str, backbone: Backbone, chosen: list[Sample]) -> Evidence:
    """Gather the evidence of a method with its default options; a contrast has every second sample as ordinary."""
    halves = Samples(chosen[::2], chosen[1::2]) if method_cards()[method]["contrast"] else Samples(chosen)
    return _module(method).gather(backbone, halves, _options(method))


def keep(method: str, way: Way, backbone: Backbone, evidence: Evidence) -> int:
    """Score and keep the best as a scoring job does, but write nothing; return the number of units kept."""
    options = _options(method)
    groups = keep_top(lambda: _module(method).scores(backbone, evidence, options), way.kept)
    return sum(as_table(granularity_of(method), *one).num_rows for one in groups)


def agreement(sizes: Sizes) -> Iterator[Figure]:
    """Compare the device's scores of a small model with those of the CPU in float32.

    Raises:
        ValueError: in float32 they differ by more than `TOLERANCE`, relative to the largest score of their matrix.
    """
    chosen = samples(8, sizes.tokens, sizes.small["vocab_size"])
    cpu = {method: _scores(method, llama(sizes.small), chosen) for method in WAYS}
    for method, reference in cpu.items():
        exact = _scores(method, llama_like(sizes, torch.float32), chosen)
        worst = max(_difference(exact[where], scores) for where, scores in reference.items())
        require(worst < TOLERANCE, f"{method} on {sizes.device} differs by {worst:.1e} from the CPU")
        yield Figure(
            f"{method}, small model: float32 difference from the CPU, relative to the largest score",
            worst,
            "",
            0,
        )
        rough = _scores(method, llama_like(sizes, torch.bfloat16), chosen)
        iou = sum(_iou(rough[where], scores) for where, scores in reference.items()) / len(reference)
        yield Figure(f"{method}, small model: IoU of the best 5 % in bfloat16 and in float32", iou, "", 1)


def llama_like(sizes: Sizes, dtype: torch.dtype) -> Backbone:
    """Create the small model on the CPU and move it to the device, because another device would draw other weights."""
    backbone = llama(sizes.small)
    backbone.model.to(sizes.device, dtype)
    return backbone


def _scores(method: str, backbone: Backbone, chosen: list[Sample]) -> dict[str, Tensor]:
    evidence = gather(method, backbone, chosen)
    scored = _module(method).scores(backbone, evidence, _options(method))
    return {where: scores.float().cpu() for where, scores in scored}


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _iou(found: Tensor, expected: Tensor) -> float:
    n = max(1, found.numel() // 20)
    best = [torch.zeros(scores.numel(), dtype=torch.bool) for scores in (found, expected)]
    for mask, scores in zip(best, (found, expected), strict=True):
        mask[scores.flatten().topk(n).indices] = True
    return int((best[0] & best[1]).sum()) / int((best[0] | best[1]).sum())


def _module(method: str):
    return importlib.import_module(method_module(method))


def _options(method: str) -> dict:
    return {name: option["default"] for name, option in method_cards()[method]["options"].items()}
