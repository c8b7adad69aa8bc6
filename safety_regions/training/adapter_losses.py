"""The losses of adapter training: the loss of a response, and DPO's loss of a preference pair.

DPO (Rafailov et al. 2023, arXiv 2305.18290), log-probabilities in nats, summed over the response:

    -log sigmoid( beta * [ log p(chosen) - log p(rejected) - the same difference under the reference model ] )
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from safety_regions.training.loop import IGNORED, Batch, Chat, collate


class Pair(NamedTuple):
    """Two responses to a prompt; ``reference`` is log p(chosen) - log p(rejected) under the reference model, nats."""

    chosen: Chat
    rejected: Chat
    reference: float


def response_logps(model: nn.Module, chats: Sequence[Chat], pad: int) -> Tensor:
    """Log-probability of each chat's response given its prompt, nats, summed over tokens: float32, (chats,)."""
    batch = Batch(*(tensor.to(model.device) for tensor in collate(chats, pad)))
    output = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
        logits_to_keep=batch.labels.shape[1] + 1,
    )
    logits = output.logits[:, :-1].float().transpose(1, 2)
    labels = batch.labels.to(logits.device)
    return -cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none").sum(1)


def supervised_losses(model: nn.Module, chats: Sequence[Chat], pad: int) -> Tensor:
    """Mean cross-entropy of each chat's response, nats per token: (chats,)."""
    logps = response_logps(model, chats, pad)
    return -logps / logps.new_tensor([len(chat.response) for chat in chats])


def preference_losses(model: nn.Module, pairs: Sequence[Pair], pad: int, beta: float) -> Tensor:
    """DPO's loss of each pair, nats: (pairs,)."""
    ratios = _log_ratios(model, [(pair.chosen, pair.rejected) for pair in pairs], pad)
    return -logsigmoid(beta * (ratios - ratios.new_tensor([pair.reference for pair in pairs])))


@torch.no_grad()
def with_reference(model: nn.Module, both: Sequence[tuple[Chat, Chat]], pad: int, size: int) -> list[Pair]:
    """Pairs of (chosen, rejected) with the current model as their reference, ``size`` pairs per pass."""
    pairs = []
    for start in range(0, len(both), size):
        chunk = both[start : start + size]
        ratios = _log_ratios(model, chunk, pad).tolist()
        pairs += [Pair(*chats, ratio) for chats, ratio in zip(chunk, ratios, strict=True)]
    return pairs


def _log_ratios(model: nn.Module, both: Sequence[tuple[Chat, Chat]], pad: int) -> Tensor:
    chosen, rejected = zip(*both, strict=True)
    logps = response_logps(model, [*chosen, *rejected], pad)
    return logps[: len(both)] - logps[len(both) :]
