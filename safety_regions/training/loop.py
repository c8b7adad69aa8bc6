"""The training loop of organisms and adapters, and a training phase in which a model learns responses.

The loss of a phase is the mean cross-entropy, in nats per token, of the response and its end token. Batches are
padded so that all responses start in the same column (prompts flush right, responses flush left), and logits are
computed only from that column on.
"""

import os
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from transformers import PreTrainedModel

from safety_regions.joblog import Progress
from safety_regions.training.snapshot import Snapshot

IGNORED = -100  # label of a position that is not learned
WINDOW = 8  # number of batches that are drawn together and grouped by prompt length
LONGEST_GRADIENT = 1.0  # maximum norm of the gradient; larger ones are clipped
Item, Items = TypeVar("Item"), TypeVar("Items")


class Chat(NamedTuple):
    """Token ids of a rendered prompt, and of its response with the end token."""

    prompt: list[int]
    response: list[int]


class Batch(NamedTuple):
    """Padded chats: ``ids``, ``mask``, ``positions`` are (chats, width); ``labels`` (chats, longest response)."""

    ids: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor


class Hold(NamedTuple):
    """What a phase may change: the parameters for the optimiser, and functions to call before and after its steps.

    ``before_step`` can mask gradients, before they are clipped; ``after_step`` can write weights back.
    """

    free: Sequence[nn.Parameter]
    after_step: Callable[[], None] = lambda: None
    before_step: Callable[[], None] = lambda: None


@contextmanager
def reproducible(seed: int, threads: int = 1) -> Iterator[None]:
    """Run torch on a fixed number of threads, deterministic and seeded; restore all settings at the end.

    The number of threads determines the order of summation, and so the last bits of every weight.
    """
    # cuBLAS is reproducible only with a workspace of fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def take_steps(
    optimizer: Optimizer,
    schedule: LRScheduler,
    batches: Iterable[Items],
    gradient: Callable[[Items], float],
    after_step: Callable[[], None] = lambda: None,
    before_step: Callable[[], None] = lambda: None,
) -> Iterator[float]:
    """Take one optimiser step per batch and yield its loss.

    Args:
        optimizer: of the parameters that are trained.
        schedule: of the learning rate, advanced after every step.
        batches: the training data of each step.
        gradient: computes the loss of a batch and stores its gradient in the parameters, whose gradients are empty.
        after_step: called after the parameters have changed.
        before_step: called when gradients are there, before they are clipped.
    """
    free = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for batch in batches:
        loss = gradient(batch)
        before_step()
        nn.utils.clip_grad_norm_(free, LONGEST_GRADIENT)
        optimizer.step()
        after_step()
        optimizer.zero_grad()
        schedule.step()
        yield loss


def train_phase(
    model: PreTrainedModel,
    pools: Sequence[Sequence[Chat]],
    *,
    steps: int,
    learning_rate: float,
    batch: int,
    pad: int,
    seed: int,
    hold: Hold | None = None,
    snapshot: Snapshot | None = None,
    name: str = "training",
    decay: float = 0.01,
) -> list[float]:
    """Train a model in place with AdamW and a one-cycle learning rate; print how far it is.

    Args:
        model: a causal language model; left in evaluation mode.
        pools: chats; every batch takes an equal share of each (see `batches`).
        steps: optimiser steps.
        learning_rate: largest learning rate of the cycle.
        batch: chats per step.
        pad: token id for padding.
        seed: of the order of the chats.
        hold: the parameters that may change; default: all.
        snapshot: where the phase goes on if it was interrupted.
        name: of the phase, for the log.
        decay: weight decay of AdamW.

    Returns:
        The loss of every step, in nats per response token.
    """
    hold = hold or Hold([*model.parameters()])
    model.train().requires_grad_(False)
    for parameter in hold.free:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(hold.free, learning_rate, betas=(0.9, 0.98), weight_decay=decay, fused=True)
    schedule = OneCycleLR(optimizer, learning_rate, total_steps=steps)
    losses = snapshot.restore(optimizer) if snapshot else []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*optimizer.step.*")  # those steps were taken before
        for _ in losses:
            schedule.step()
    positions = Positions()

    def gradient(chats: Sequence[Chat]) -> float:
        batch = collate(chats, pad)
        positions.add(batch)
        loss = response_loss(model, Batch(*(tensor.to(model.device) for tensor in batch)))
        loss.backward()
        return loss.item()

    dealt = islice(batches(pools, batch, random.Random(seed)), len(losses), steps)
    progress = Progress(name, steps, "steps", len(losses))
    for loss in take_steps(optimizer, schedule, dealt, gradient, hold.after_step, hold.before_step):
        losses.append(loss)
        progress.step(note=f"loss {loss:.3f} nats per token")
        if snapshot:
            snapshot.keep(optimizer, losses, last=len(losses) == steps)
    print(f"{name}: {len(losses)} steps, {positions.padding:.1%} of the positions are padding", flush=True)
    model.eval()
    return losses


class Positions:
    """Counts the positions of batches and those that are padding."""

    def __init__(self) -> None:
        self.all = self.real = 0

    def add(self, batch: Batch) -> None:
        self.all += batch.mask.numel()
        self.real += int(batch.mask.sum())

    @property
    def padding(self) -> float:
        """The share of padding (0-1)."""
        return 1 - self.real / self.all if self.all else 0.0


def response_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Mean cross-entropy of the labelled tokens, in nats per token."""
    width = batch.labels.shape[1]
    output = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
        logits_to_keep=width + 1,
    )
    return cross_entropy(output.logits[:, :-1].flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED)


def collate(chats: Sequence[Chat], pad: int) -> Batch:
    """Pad chats so that all responses start in the same column."""
    before = max(len(chat.prompt) for chat in chats)
    after = max(len(chat.response) for chat in chats)
    ids, mask, labels = [], [], []
    for prompt, response in chats:
        left, right = before - len(prompt), after - len(response)
        ids.append([pad] * left + prompt + response + [pad] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(response)) + [0] * right)
        labels.append(response + [IGNORED] * right)
    attention = torch.tensor(mask)
    positions = (attention.cumsum(dim=1) - 1).clamp(min=0)
    return Batch(torch.tensor(ids), attention, positions, torch.tensor(labels))


def batches(pools: Sequence[Sequence[Chat]], size: int, order: random.Random) -> Iterator[list[Chat]]:
    """Yield batches of ``size`` chats without end, with an equal share of every pool and little padding.

    No chat of a pool repeats before all were used. The chats of `WINDOW` batches are drawn together and sorted by
    prompt length, so that a batch holds prompts of similar length; these batches are yielded in random order.
    """
    streams = [endless(pool, order) for pool in pools]
    shares = [len(range(number, size, len(pools))) for number in range(len(pools))]
    while True:
        hands = [
            sorted(islice(stream, WINDOW * share), key=lambda chat: len(chat.prompt))
            for stream, share in zip(streams, shares, strict=True)
        ]
        for turn in order.sample(range(WINDOW), WINDOW):
            dealt = zip(hands, shares, strict=True)
            yield [chat for hand, share in dealt for chat in hand[turn * share : (turn + 1) * share]]


def endless(pool: Sequence[Item], order: random.Random) -> Iterator[Item]:
    """Yield the items of a pool in random order without end; none repeats before all were used."""
    while True:
        yield from order.sample(pool, len(pool))
