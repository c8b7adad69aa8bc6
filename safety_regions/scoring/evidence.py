"""What a pass over the samples gathers: a tensor per address, sums in float32, finite or refused.

Every method gathers by hooks on the scored linear layers; this module holds what they share: watching
inputs and output gradients, refusing values that are not finite, and shuffling.
"""

import zlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from safety_regions.backbone import Backbone, ScoredLinear, attached
from safety_regions.errors import StudyError, explain
from safety_regions.scoring.samples import Batch

Evidence = dict[str, Tensor]


class Finite:
    """Collects, per batch, which samples met a value that is not finite, and where first.

    `check` costs one flag per sample and synchronises nothing; `raise_for` reads the flags once a batch.
    """

    def __init__(self) -> None:
        self._flags: list[tuple[str, Tensor]] = []

    def check(self, address: str, values: Tensor) -> None:
        """Note whether ``values`` (batch, ...) are finite for each sample."""
        self._flags.append((address, torch.isfinite(values).flatten(1).all(dim=1)))

    def raise_for(self, batch: Batch) -> None:
        """Raise a `StudyError` naming the first address and the prompt ids, and forget the flags."""
        flags, self._flags = self._flags, []
        for address, good in flags:
            if not bool(good.all()):
                ids = [i for i, fine in zip(batch.prompt_ids, good.tolist(), strict=True) if not fine]
                raise StudyError(
                    explain(
                        f"scoring: {address}",
                        f"values that are not finite for {', '.join(ids[:5])}",
                        "finite numbers",
                        "`dtype: float32` or bfloat16 in the backbone's card",
                    )
                )


def watch_inputs(
    backbone: Backbone, batches: Iterable[Batch], add: Callable[[ScoredLinear, Tensor, Batch], None]
) -> int:
    """Forward passes only; ``add(linear, x, batch)`` with x of shape (batch, tokens, in). Returns the samples seen."""
    state: dict[str, Batch] = {}
    finite = Finite()

    def hook_of(linear: ScoredLinear):
        def hook(_module, args):
            finite.check(linear.slices[0].address, args[0])
            add(linear, args[0], state["batch"].to(args[0].device))

        return linear.module.register_forward_pre_hook(hook)

    seen = 0
    with torch.no_grad(), attached([hook_of(linear) for linear in backbone.linears]):
        for batch in batches:
            state["batch"] = batch
            inputs = batch.to(backbone.device)
            backbone.decoder(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, use_cache=False
            )
            finite.raise_for(batch)
            seen += len(batch.prompt_ids)
    return seen


def watch_gradients(
    backbone: Backbone,
    batches: Iterable[Batch],
    add: Callable[[ScoredLinear, Tensor, Tensor], None],
    loss: str = "mean",
) -> int:
    """One forward and one backward pass per batch for all layers at once. Returns the samples seen.

    ``add(linear, x, delta)`` gets the layer's input x (batch, tokens, in) and the gradient delta
    (batch, tokens, out) of each sample's own loss with respect to the layer's output. Samples do not mix:
    row b belongs to sample b alone, and delta is zero wherever no loss depends on the position (padding).
    Weights take no gradient, so autograd forms no weight gradient of its own.

    Args:
        loss: per sample, "mean" or "sum" of the negative log-likelihood (nats) over the response tokens.
    """
    finite = Finite()

    def hook_of(linear: ScoredLinear):
        def hook(_module, args, output):
            x = args[0].detach()

            def backward(delta: Tensor) -> None:
                finite.check(linear.slices[0].address, delta)
                add(linear, x, delta)

            output.register_hook(backward)

        return linear.module.register_forward_hook(hook)

    seen = 0
    with torch.enable_grad(), attached([hook_of(linear) for linear in backbone.linears]):
        for batch in batches:
            inputs = batch.to(backbone.device)
            embedded = backbone.model.get_input_embeddings()(inputs.input_ids).requires_grad_()
            losses = sample_losses(backbone, embedded, inputs, loss)
            finite.check("loss", losses.detach()[:, None])
            torch.autograd.grad(losses.sum(), embedded)
            finite.raise_for(batch)
            seen += len(batch.prompt_ids)
    return seen


def sample_losses(backbone: Backbone, embedded: Tensor, batch: Batch, reduction: str) -> Tensor:
    """Negative log-likelihood of the response tokens, nats, shape (batch,), mean or sum over tokens.

    Logits are formed only at positions that predict a response token.
    """
    logits = backbone.logits(embedded, batch.attention_mask, batch.target_mask)
    targets = batch.input_ids.roll(-1, dims=1)[batch.target_mask]
    nll = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    rows = batch.target_mask.nonzero()[:, 0]
    total = torch.zeros(len(batch.prompt_ids), device=nll.device).index_add(0, rows, nll)
    return total / batch.target_mask.sum(1) if reduction == "mean" else total


def shuffle_evidence(evidence: Evidence, seed: int) -> Evidence:
    """Evidence permuted within each address by a seeded permutation; weights, and marginals, stay.

    Each address has its own permutation, a function of the seed and the address alone, so that the shuffled
    evidence of two datasets by two seeds is independent while what the weights share remains.
    """
    flat = {address: values.flatten() for address, values in evidence.items()}
    return {
        address: values.view_as(evidence[address]) for address, values in shuffle_units(flat, seed).items()
    }


def shuffle_units(evidence: Evidence, seed: int) -> Evidence:
    """Evidence (..., units) whose units change places within each address, alike for all that stands before them.

    For evidence per prompt, (prompts, units): a unit keeps all it had, so units stay as alike across prompts as
    they were. The permutations are those described at `shuffle_evidence`.
    """

    def permuted(address: str, values: Tensor) -> Tensor:
        # The CPU generator reads only the low 32 bits of a seed, so seed and address are mixed into 32.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{address}".encode()))
        return values[..., torch.randperm(values.shape[-1], generator=generator).to(values.device)]

    return {address: permuted(address, values) for address, values in evidence.items()}
