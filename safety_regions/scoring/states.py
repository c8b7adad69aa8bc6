"""The hidden state of a prompt's last token after every decoder block, and how its mean differs between two classes."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from safety_regions.model.backbone import Backbone, attached
from safety_regions.model.batches import Batch, Sample, by_frequencies, padded
from safety_regions.model.finite import Finite
from safety_regions.model.halving import in_batches

DEPTH = 0.6
"""Fraction of the decoder blocks after which the difference of means is taken, unless an option says otherwise."""


class PromptStates(NamedTuple):
    """One vector per prompt and decoder block.

    Attributes:
        prompt_ids: ids of the n prompts, in the order of the rows.
        vectors: per decoder block a tensor (n, hidden), float32, on the CPU.
    """

    prompt_ids: tuple[str, ...]
    vectors: tuple[Tensor, ...]


def blocks_before(depth: float, n: int) -> int:
    """The number of decoder blocks before a state at a fraction of the depth: of n, rounded half up, at least 1."""
    return max(1, math.floor(depth * n + 0.5))


def prompt_states(
    backbone: Backbone, samples: Sequence[Sample], batch_size: int, *, normed: bool
) -> PromptStates:
    """Hidden states at the last prompt token, which predicts the first response token.

    Only the prompts go through the model: attention is causal, so the response cannot change these states. Hooks
    keep one position of each block, so memory is n * layers * hidden numbers (52 MB for 100 prompts of Llama-3-8B).

    Args:
        backbone: a checkpoint in evaluation mode.
        samples: tokenised prompts; any responses are cut off.
        batch_size: prompts per forward pass, halved after an out-of-memory error; changes results only by rounding.
        normed: take the last block's vector after the final norm, like ``hidden_states[-1]`` of transformers
            and the released code, instead of the block's own output.

    Raises:
        StudyError: a hidden state is not finite; the message names the block and the prompt ids.
    """
    prompts = [sample.prompt for sample in samples]
    ids: list[str] = []
    rows: list[list[Tensor]] = [[] for _ in backbone.blocks]
    for group, states in _passes(backbone, prompts, batch_size, normed):
        ids += [sample.prompt_id for sample in group]
        for row, state in zip(rows, states, strict=True):
            row.append(state)
    return PromptStates(tuple(ids), tuple(torch.cat(row) for row in rows))


def difference_of_means(
    backbone: Backbone,
    harmful: Sequence[Sample],
    ordinary: Sequence[Sample],
    batch_size: int,
    depth: float = DEPTH,
) -> Tensor:
    """Mean residual stream over harmful prompts minus that over ordinary ones: (hidden,), float64, on the CPU.

    At the last prompt token, after `blocks_before` decoder blocks. Source: Arditi et al. 2024, arXiv 2406.11717,
    section 2.3, which chooses layer and token by what ablating the difference does.

    Raises:
        StudyError: a hidden state is not finite.
    """
    block = blocks_before(depth, len(backbone.blocks)) - 1
    means = (
        prompt_states(backbone, given, batch_size, normed=False).vectors[block].double().mean(0)
        for given in (harmful, ordinary)
    )
    return next(means) - next(means)


def _passes(
    backbone: Backbone, prompts: Sequence[Sample], batch_size: int, normed: bool
) -> Iterator[tuple[Sequence[Sample], list[Tensor]]]:
    """Yield the prompts of each batch, and for each block the states (batch, hidden) of their last tokens."""
    state: dict[str, Batch] = {}
    seen: dict[int, Tensor] = {}
    finite = Finite()

    def hook_of(layer: int, block: nn.Module):
        def hook(_module, _args, output: Tensor) -> None:
            seen[layer] = _last_tokens(state["batch"], output)

        return block.register_forward_hook(hook)

    def states_of(group: Sequence[Sample]) -> list[Tensor]:
        state["batch"] = batch = padded(group)
        inputs = batch.to(backbone.device)
        output = backbone.decoder(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, use_cache=False
        )
        if normed:
            seen[len(backbone.blocks) - 1] = _last_tokens(batch, output.last_hidden_state)
        for layer, vectors in seen.items():
            finite.check(f"hidden states after block {layer}", vectors)
        finite.raise_for(batch)
        return [seen[layer] for layer in range(len(backbone.blocks))]

    with torch.no_grad(), attached([hook_of(layer, block) for layer, block in enumerate(backbone.blocks)]):
        for group in by_frequencies(prompts, backbone.rope_switch):
            yield from in_batches(group, batch_size, states_of)


def _last_tokens(batch: Batch, hidden: Tensor) -> Tensor:
    """(batch, tokens, hidden) -> (batch, hidden) float32 on the CPU: the last real token of each row."""
    return batch.last(hidden).float().cpu()
