"""Run samples through a backbone and give a method the inputs of its linear layers, and the gradients.

A method provides a `Gatherer`, which is created anew for every pass and every retry. A pass that does not fit in
memory covers fewer layers or uses smaller batches (`safety_regions.scoring.memory`, `safety_regions.model.halving`),
and yields evidence for its own layers only.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from safety_regions.joblog import Progress
from safety_regions.model.backbone import Backbone, ScoredLinear, attached
from safety_regions.model.batches import Batch, Sample, batches, longest_first
from safety_regions.model.finite import Finite
from safety_regions.model.halving import OutOfMemory, halving
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.memory import Needs, free_bytes, needs_of, plan_passes
from safety_regions.scoring.samples import Samples
from safety_regions.scoring.store import stored

Linears = Sequence[ScoredLinear]


class Gatherer(Protocol):
    """Accumulates statistics of some layers over samples.

    ``add(linear, x, batch)`` (`watch_inputs`), ``add(linear, x, delta)`` (`watch_gradients`) or ``add(linear, x, base,
    batch)`` (`watch_pairs`) receives the values of one layer for one batch; ``evidence(seen)`` returns the evidence
    after ``seen`` samples.
    """

    def add(self, linear: ScoredLinear, x: Tensor, *others: Batch | Tensor) -> None: ...

    def evidence(self, seen: int) -> Evidence: ...


Start = Callable[[Linears], Gatherer]
Pass = Callable[[Backbone, Linears, Iterable[Batch], Gatherer], Evidence]


def watch_inputs(
    backbone: Backbone, samples: Samples, start: Start, bytes_per_weight: int = 0, only: int | None = None
) -> Evidence:
    """Run forward passes only; ``add(linear, x, batch)`` gets x (batch, tokens, in), and ``batch`` on x's device.

    Args:
        bytes_per_weight: memory of the gatherer for each weight of its layers.
        only: the one decoder block that is watched; None: all.

    Raises:
        StudyError: a value is not finite (the message names address and prompt ids), or memory is too small.
    """
    needs = needs_of(backbone, longest_first(samples.identification)[0], bytes_per_weight, gradients=False)
    if only is not None:
        needs = needs._replace(
            sums=[size if layer == only else Counter() for layer, size in enumerate(needs.sums)]
        )
    return _in_passes(backbone, samples, start, _forward, needs, only)


def watch_gradients(
    backbone: Backbone, samples: Samples, start: Start, loss: str = "mean", bytes_per_weight: int = 0
) -> Evidence:
    """Run one forward and one backward pass per batch, for all layers at once if memory allows.

    ``add(linear, x, delta)`` gets the layer's input x (batch, tokens, in) and the gradient delta (batch, tokens, out)
    of each sample's own loss with respect to the layer's output. Samples do not mix: row b belongs to sample b
    alone, and delta is zero at positions that affect no loss (padding). Weights require no gradient, so autograd
    computes no weight gradients itself.

    Args:
        loss: per sample, "mean" or "sum" of the negative log-likelihood (nats) over the response tokens.
        bytes_per_weight: memory of the gatherer for each weight of its layers.

    Raises:
        StudyError: as `watch_inputs`.
    """
    needs = needs_of(backbone, longest_first(samples.identification)[0], bytes_per_weight, gradients=True)
    return _in_passes(backbone, samples, start, partial(_backward, loss=loss), needs)


def watch_pairs(backbone: Backbone, samples: Samples, start: Start, projection: str) -> Evidence:
    """Run forward passes of a backbone and of its base on the same tokens, and watch the layers of one projection.

    ``add(linear, x, base, batch)`` gets the layer's inputs in both models, (batch, tokens, in) each, all on x's device.
    Those of the base are kept for one batch.

    Raises:
        StudyError: as `watch_inputs`, or the two models have different shapes.
    """
    longest = longest_first(samples.identification)[0]
    needs = needs_of(backbone, longest, 0, gradients=False)
    kept = [Counter() for _ in backbone.blocks]
    for linear, before in _watched(backbone, backbone.linears, projection):
        size = len(longest.ids) * linear.module.in_features * backbone.model.dtype.itemsize
        kept[linear.layer][before.module.weight.device] += size
    run = partial(_paired, projection=projection)
    return _in_passes(backbone, samples, start, run, needs._replace(blocks=kept))


def _watched(
    backbone: Backbone, linears: Linears, projection: str
) -> Iterator[tuple[ScoredLinear, ScoredLinear]]:
    """The layers of a projection among ``linears``, and the same ones of the base."""
    layers = {linear.layer for linear in linears}
    for linear, before in backbone.linear_pairs():
        if linear.layer in layers and any(s.address.endswith(f".{projection}") for s in linear.slices):
            yield linear, before


def _in_passes(
    backbone: Backbone, samples: Samples, start: Start, run: Pass, needs: Needs, only: int | None = None
) -> Evidence:
    """Gather the evidence of all layers, with the number of passes and the batch size that fit in memory."""
    free = Counter(
        {device: free_bytes(device, samples.memory) for device in needs.of(range(len(backbone.blocks)), 1)}
    )
    plan = plan_passes(needs, free, samples.batch_size)
    if len(plan.passes) > 1 or plan.batch_size < samples.batch_size:
        print(f"limited memory: planned {len(plan.passes)} passes in batches of {plan.batch_size}")
    evidence, size, ahead = {}, plan.batch_size, list(plan.passes)

    def one_pass(layers: range, size: int) -> tuple[Evidence, int]:
        linears = [
            linear for linear in backbone.linears if linear.layer in layers and only in (None, linear.layer)
        ]
        given, switch = samples.identification, backbone.rope_switch
        what = (
            "scoring"
            if len(layers) == len(backbone.blocks)
            else f"scoring layers {layers[0]} to {layers[-1]}"
        )
        found, size = halving(
            size, lambda n: run(backbone, linears, _counted(what, given, n, switch), start(linears))
        )
        if len(layers) < len(backbone.blocks):
            found = {address: stored(values, samples) for address, values in found.items()}
        return found, size

    while ahead:
        layers = ahead.pop(0)
        try:
            found, size = one_pass(layers, size)
            evidence |= found
        except OutOfMemory:
            if len(layers) == 1 or not any(needs.sums):
                raise
            size, middle = 1, len(layers) // 2
            ahead[:0] = layers[:middle], layers[middle:]
            print(f"out of memory with {len(layers)} decoder blocks per pass: continuing with {middle}")
    return evidence


def _counted(what: str, given: Sequence[Sample], size: int, switch: int | None) -> Iterator[Batch]:
    """The `batches` of the samples; how many samples are done is said on the way."""
    progress = Progress(what, len(given), "samples")
    for batch in batches(given, size, switch):
        yield batch
        progress.step(len(batch.prompt_ids))


def _forward(backbone: Backbone, linears: Linears, given: Iterable[Batch], gatherer: Gatherer) -> Evidence:
    state: dict[str, Batch] = {}
    finite = Finite()

    def hook_of(linear: ScoredLinear):
        def hook(_module, args):
            finite.check(linear.slices[0].address, args[0])
            gatherer.add(linear, args[0], state["batch"].to(args[0].device))

        return linear.module.register_forward_pre_hook(hook)

    seen = 0
    with torch.no_grad(), attached([hook_of(linear) for linear in linears]):
        for batch in given:
            state["batch"] = batch
            _decode(backbone, batch)
            finite.raise_for(batch)
            seen += len(batch.prompt_ids)
    return gatherer.evidence(seen)


def _decode(backbone: Backbone, batch: Batch) -> None:
    inputs = batch.to(backbone.device)
    backbone.decoder(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, use_cache=False)


def _paired(
    backbone: Backbone, linears: Linears, given: Iterable[Batch], gatherer: Gatherer, projection: str
) -> Evidence:
    state: dict[str, Batch] = {}
    of_base: dict[int, Tensor] = {}
    finite = Finite()

    def hook_of_base(linear: ScoredLinear, before: ScoredLinear):
        def hook(_module, args):
            finite.check(f"{linear.slices[0].address} of the base", args[0])
            of_base[linear.layer] = args[0]

        return before.module.register_forward_pre_hook(hook)

    def hook_of(linear: ScoredLinear):
        def hook(_module, args):
            x = args[0]
            finite.check(linear.slices[0].address, x)
            gatherer.add(linear, x, of_base.pop(linear.layer).to(x.device), state["batch"].to(x.device))

        return linear.module.register_forward_pre_hook(hook)

    pairs, seen = list(_watched(backbone, linears, projection)), 0
    hooks = [hook_of_base(*pair) for pair in pairs] + [hook_of(linear) for linear, _ in pairs]
    with torch.no_grad(), attached(hooks):
        for batch in given:
            state["batch"] = batch
            _decode(backbone.base, batch)
            _decode(backbone, batch)
            finite.raise_for(batch)
            seen += len(batch.prompt_ids)
    return gatherer.evidence(seen)


def _backward(
    backbone: Backbone, linears: Linears, given: Iterable[Batch], gatherer: Gatherer, loss: str
) -> Evidence:
    finite = Finite()
    entered: list[Tensor] = []

    def enter(_module, args):
        # Autograd starts at the lowest watched block, so earlier blocks save no activations.
        entered[:] = [args[0].detach().requires_grad_()]
        return (entered[0], *args[1:])

    def hook_of(linear: ScoredLinear):
        def hook(_module, args, output):
            x = args[0].detach()

            def backward(delta: Tensor) -> None:
                finite.check(linear.slices[0].address, delta)
                gatherer.add(linear, x, delta)

            output.register_hook(backward)

        return linear.module.register_forward_hook(hook)

    lowest = backbone.blocks[linears[0].layer]
    handles = [lowest.register_forward_pre_hook(enter), *map(hook_of, linears)]
    seen = 0
    with torch.enable_grad(), attached(handles):
        for batch in given:
            losses = sample_losses(backbone, batch.to(backbone.device), loss)
            finite.check("loss", losses.detach()[:, None])
            torch.autograd.grad(losses.sum(), entered)
            finite.raise_for(batch)
            seen += len(batch.prompt_ids)
    return gatherer.evidence(seen)


def sample_losses(backbone: Backbone, batch: Batch, reduction: str) -> Tensor:
    """Negative log-likelihood of the response tokens, nats, shape (batch,), mean or sum over tokens.

    Logits are computed only at positions that predict a response token.
    """
    logits = backbone.logits(batch.input_ids, batch.attention_mask, batch.target_mask)
    batch = batch.to(logits.device)
    targets = batch.input_ids.roll(-1, dims=1)[batch.target_mask]
    nll = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    rows = batch.target_mask.nonzero()[:, 0]
    total = torch.zeros(len(batch.prompt_ids), device=nll.device).index_add(0, rows, nll)
    return total / batch.target_mask.sum(1) if reduction == "mean" else total
