"""Run samples through a backbone and give a method the inputs of its linear layers, and the gradients.

A method provides a `Gatherer`, which is created anew for every pass and every retry. A pass that does not fit in
memory covers fewer layers or uses smaller batches (`safety_regions.scoring.memory`, `safety_regions.model.halving`),
and yields evidence for its own layers only.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from safety_regions.joblog import Progress
from safety_regions.model.backbone import Backbone, ScoredLinear, attached
from safety_regions.model.batches import Batch, Sample, batches, longest_first
from safety_regions.model.finite import Finite
from safety_regions.model.free_memory import free_bytes
from safety_regions.model.halving import OutOfMemory, halving
from safety_regions.model.scratch import Rows
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.memory import Needs, needs_of, plan_passes
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
    backbone: Backbone, samples: Samples, start: Start, bytes_per_weight: int = 0, only: int | None = None,
    whose: str = "",
) -> Evidence:  # fmt: skip
    """Run forward passes only; ``add(linear, x, batch)`` gets x (batch, tokens, in), and ``batch`` on x's device.

    Args:
        bytes_per_weight: memory of the gatherer for each weight of its layers.
        only: the one decoder block that is watched; None: all.
        whose: what an error says after an address.

    Raises:
        StudyError: a value is not finite (the message names address and prompt ids), or memory is too small.
    """
    needs = needs_of(backbone, longest_first(samples.identification)[0], bytes_per_weight, gradients=False)
    if only is not None:
        needs = needs._replace(
            sums=[size if layer == only else Counter() for layer, size in enumerate(needs.sums)]
        )
    return _in_passes(backbone, samples, start, partial(_forward, whose=whose), needs, only)


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
    """Run the base and then the backbone over the same tokens, and watch the layers of one projection.

    ``add(linear, x, base, batch)`` gets the layer's inputs in both models, (batch, tokens, in) each, all on x's device.
    Those of the base are 0 at positions that neither hold a token of the response nor predict one. The others go
    through a file, and only one of the models is at work at a time, so that both need not fit in memory
    (`load_with_base`).

    Raises:
        StudyError: as `watch_inputs`, or the two models have different shapes.
    """
    backbone.check_base()
    of_base = watch_inputs(
        backbone.base,
        samples,
        lambda linears: Recorded(linears, projection, samples.scratch),
        whose=" of the base",
    )
    return watch_inputs(backbone, samples, lambda linears: Beside(start(linears), of_base))


def _counted_positions(batch: Batch) -> Tensor:
    return batch.response_mask | batch.target_mask


class Recorded:
    """The inputs of one projection's layers at the counted positions of all samples: (positions, in), in files."""

    def __init__(self, linears: Linears, projection: str, folder: Path | None) -> None:
        addresses = [linear.slices[0].address for linear in linears]
        self.found = {where: Rows(folder) for where in addresses if where.endswith(f".{projection}")}

    def add(self, linear: ScoredLinear, x: Tensor, batch: Batch) -> None:
        rows = self.found.get(linear.slices[0].address)
        if rows is not None:
            rows.add(x[_counted_positions(batch)])

    def evidence(self, seen: int) -> Evidence:
        return {where: rows.mapped() for where, rows in self.found.items()}


class Beside:
    """Gives a gatherer what `Recorded` has found of each batch; the order of samples depends on no batch size."""

    def __init__(self, gatherer: Gatherer, of_base: Evidence) -> None:
        self.gatherer, self.ahead = gatherer, dict(of_base)

    def add(self, linear: ScoredLinear, x: Tensor, batch: Batch) -> None:
        where = linear.slices[0].address
        if where in self.ahead:
            counted = _counted_positions(batch)
            n, rows = int(counted.sum()), self.ahead[where]
            base = rows.new_zeros(x.shape, device=x.device)
            base[counted], self.ahead[where] = rows[:n].to(x.device), rows[n:]
            self.gatherer.add(linear, x, base, batch)

    def evidence(self, seen: int) -> Evidence:
        return self.gatherer.evidence(seen)


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


def _forward(
    backbone: Backbone, linears: Linears, given: Iterable[Batch], gatherer: Gatherer, whose: str
) -> Evidence:
    state: dict[str, Batch] = {}
    finite = Finite()

    def hook_of(linear: ScoredLinear):
        def hook(_module, args):
            finite.check(linear.slices[0].address + whose, args[0])
            gatherer.add(linear, args[0], state["batch"].to(args[0].device))

        return linear.module.register_forward_pre_hook(hook)

    seen = 0
    with torch.no_grad(), attached([hook_of(linear) for linear in linears]):
        for batch in given:
            state["batch"], inputs = batch, batch.to(backbone.device)
            backbone.decoder(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, use_cache=False
            )
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
