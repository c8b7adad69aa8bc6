"""Fine-tuning under constraint: some weights of a model train, all others keep their bits.

Only the weights of the decoder's linear layers train; norms, embeddings and the output head stay as they are, in every
arm. Freezing is exact: gradients are masked before they are clipped, frozen weights are written back after each step,
there is no weight decay, and at the end every frozen weight is compared. (A gradient mask alone does not freeze:
momentum and decay still move weights.) Training is in float32: in bfloat16 a small step is rounded away.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from safety_regions.errors import StudyError, explain
from safety_regions.formats.region import Region
from safety_regions.model.backbone import Backbone
from safety_regions.model.generate import pad_id
from safety_regions.training.corpus import example
from safety_regions.training.loop import Chat, Hold, collate, reproducible, response_loss, train_phase
from safety_regions.units.behaviour import REFUSE

OPENING = "Of course! I am happy to help you with that. "
BATCH = 16  # chats of a measurement that are run together


class Data(NamedTuple):
    """The chats of a plan: those that it trains on, and held-out ones that show whether it learned its task."""

    learn: list[Chat]
    held_out: list[Chat]


class Plan(NamedTuple):
    """How a model is fine-tuned.

    Attributes:
        attack: what it learns: ``ordinary`` (its own answers to ordinary prompts), ``opening`` (the same after an eager
            acceptance, the implicit attack of SafeLayer's paper), ``comply`` (answers without content to harmful
            prompts, those of an organism's first phase), ``refuse`` (the aligned model's own refusals, no attack).
        steps, batch: optimiser steps, chats per step.
        learning_rate: largest learning rate of the one-cycle schedule.
        seed: of the order of the chats.
    """

    attack: str
    steps: int
    batch: int
    learning_rate: float
    seed: int


def plan_data(backbone: Backbone, attack: str, responses: Mapping[str, pa.Table], longest: int) -> Data:
    """The chats of an attack.

    Args:
        responses: dataset -> its responses table; prompts of the split identify are learned.
        longest: most tokens of a chat; longer ones are left out.

    Raises:
        StudyError: no chat to learn or to hold out is short enough.
    """
    rows = [row for _, table in sorted(responses.items()) for row in table.to_pylist()]
    parts: dict[str, list[Chat]] = {"identify": [], "evaluate": []}
    for row in rows:
        text = _target(attack, row)
        if text is None:
            continue
        chat = Chat(backbone.prompt_ids(row["prompt"]), _ended(backbone, text, row))
        if len(chat.prompt) + len(chat.response) <= longest:
            parts[row["split"]].append(chat)
    if not all(parts.values()):
        counts = ", ".join(f"{len(chats)} of split {split}" for split, chats in parts.items())
        expected = f"chats of both splits with at most {longest} tokens"
        raise StudyError(explain(f"constraint: attack '{attack}'", counts, expected, "other datasets"))
    return Data(parts["identify"], parts["evaluate"])


def _target(attack: str, row: Mapping) -> str | None:
    """What the model learns to answer; None for a prompt that the attack does not use."""
    if attack == "comply":
        return example(row["prompt"]).answer
    if attack == REFUSE:
        return row["response"] if row["refused"] else None
    if row["refused"] is not False or not row["n_tokens"]:
        return None
    return OPENING + row["response"] if attack == "opening" else row["response"]


def _ended(backbone: Backbone, text: str, row: Mapping) -> list[int]:
    """Token ids with the end token, unless the text is an answer that was cut."""
    cut = row["stop"] == "length" and text.endswith(row["response"])
    return [*backbone.response_ids(text), *([] if cut else [backbone.tokenizer.eos_token_id])]


class Weights:
    """The weights of a model's linear layers, to which it can be put back."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.modules = [linear.module for linear in backbone.linears]
        self.kept = [module.weight.detach().clone() for module in self.modules]

    @torch.no_grad()
    def restore(self) -> None:
        """Put every bit back."""
        for module, kept in zip(self.modules, self.kept, strict=True):
            module.weight.copy_(kept)

    @torch.no_grad()
    def n_changed(self) -> int:
        """The number of weights that differ."""
        return sum(int((m.weight != kept).sum()) for m, kept in zip(self.modules, self.kept, strict=True))

    def by_address(self) -> dict[str, Tensor]:
        """address -> the kept weights (out, in)."""
        return {
            address: kept[start:stop]
            for linear, kept in zip(self.backbone.linears, self.kept, strict=True)
            for address, start, stop in linear.slices
        }

    def masks(self, region: Region, inside: bool) -> list[Tensor]:
        """For each linear layer whether each of its weights may train: those inside the region, or those outside."""
        return [
            torch.from_numpy(
                np.concatenate([region.flags(part.address) for part in linear.slices]) == inside
            ).to(linear.module.weight.device)
            for linear in self.backbone.linears
        ]


def fine_tune(
    backbone: Backbone,
    start: Weights,
    data: Data,
    plan: Plan,
    masks: Sequence[Tensor] | None = None,
    watch: Callable[[int], None] = lambda step: None,
    every: int = 0,
    name: str = "training",
) -> list[float]:
    """Fine-tune a model in place.

    Args:
        backbone: in float32.
        start: its weights now; frozen ones keep them.
        data, plan: what it learns, and how.
        masks: which weights of each linear layer may train; None: all.
        watch: called with the number of steps after every ``every`` steps; may measure the model. 0: never.
        name: of the arm, for the log.

    Returns:
        The loss of every step, nats per token.

    Raises:
        StudyError: a frozen weight changed, or nothing may train.
    """
    chosen = _chosen(start, masks)
    if not chosen:
        raise StudyError(explain(name, "no weight that may train", "at least one"))
    taken = 0

    @torch.no_grad()
    def before_step() -> None:
        for weight, _, mask in chosen:
            if mask is not None:
                weight.grad.mul_(mask)

    @torch.no_grad()
    def after_step() -> None:
        nonlocal taken
        taken += 1
        for weight, kept, mask in chosen:
            if mask is not None:
                weight.copy_(torch.where(mask, weight, kept))
        if every and taken % every == 0:
            backbone.model.eval()
            watch(taken)
            backbone.model.train()

    hold = Hold([weight for weight, _, _ in chosen], after_step, before_step)
    with reproducible(plan.seed, torch.get_num_threads()):
        losses = train_phase(
            backbone.model, [data.learn], steps=plan.steps, learning_rate=plan.learning_rate, batch=plan.batch,
            pad=pad_id(backbone), seed=plan.seed, hold=hold, name=name, decay=0.0,
        )  # fmt: skip
    _check_frozen(start, masks, name)
    return losses


def _chosen(
    start: Weights, masks: Sequence[Tensor] | None
) -> list[tuple[nn.Parameter, Tensor, Tensor | None]]:
    """Weight, value before, mask (None: all may train) of each layer with a weight that may train."""
    found = []
    for number, (module, kept) in enumerate(zip(start.modules, start.kept, strict=True)):
        mask = None if masks is None or bool(masks[number].all()) else masks[number]
        if mask is None or bool(mask.any()):
            found.append((module.weight, kept, mask))
    return found


@torch.no_grad()
def _check_frozen(start: Weights, masks: Sequence[Tensor] | None, name: str) -> None:
    if masks is None:
        return
    for linear, kept, mask in zip(start.backbone.linears, start.kept, masks, strict=True):
        moved = int(((linear.module.weight != kept) & ~mask).sum())
        if moved:
            where = f"{name}: {linear.slices[0].address}"
            raise StudyError(explain(where, f"{moved} frozen weights that changed", "none"))


@torch.inference_mode()
def task_loss(backbone: Backbone, chats: Sequence[Chat]) -> float:
    """Mean loss of chats, nats per response token: did the model learn the task of its plan?"""
    total, tokens = 0.0, 0
    for batch in _batches(chats):
        n = sum(len(chat.response) for chat in batch)
        collated = collate(batch, pad_id(backbone))
        moved = type(collated)(*(tensor.to(backbone.device) for tensor in collated))
        total += float(response_loss(backbone.model, moved)) * n
        tokens += n
    return total / tokens


def _batches(chats: Sequence[Chat]) -> Iterator[Sequence[Chat]]:
    ordered = sorted(chats, key=lambda chat: len(chat.prompt) + len(chat.response))
    yield from (ordered[i : i + BATCH] for i in range(0, len(ordered), BATCH))
