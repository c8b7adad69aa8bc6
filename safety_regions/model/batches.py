"""Tokenised samples, and right-padded batches of them as input for a model."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor


class Sample(NamedTuple):
    """One prompt with its response: token ids, of which the first ``prompt_length`` belong to the prompt."""

    prompt_id: str
    ids: list[int]
    prompt_length: int

    @property
    def prompt(self) -> Self:
        """The prompt alone. Attention is causal, so its tokens have the same states with and without a response."""
        return self._replace(ids=self.ids[: self.prompt_length])


class Batch(NamedTuple):
    """Right-padded samples, all tensors of shape (batch, tokens).

    ``attention_mask`` is 1 on real tokens. ``response_mask`` is True where the input token belongs to the
    response (from its first token to its last). ``target_mask`` is True where the *next* token belongs to the
    response: these are the positions whose predictions enter the loss.
    """

    prompt_ids: tuple[str, ...]
    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    target_mask: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.prompt_ids, *(tensor.to(device) for tensor in self[1:]))

    def last(self, values: Tensor) -> Tensor:
        """(batch, tokens, ...) -> (batch, ...): the values of the last real token of each row."""
        last = (self.attention_mask.sum(1) - 1).to(values.device)
        return values[torch.arange(len(last), device=values.device), last]


def longest_first(samples: Sequence[Sample]) -> list[Sample]:
    """Samples sorted by decreasing length, so that the first batch needs the most memory."""
    return sorted(samples, key=lambda sample: (-len(sample.ids), sample.prompt_id))


def by_frequencies(samples: Sequence[Sample], switch: int | None) -> Iterator[list[Sample]]:
    """Samples that may share a batch, longest first; see `Backbone.rope_switch` for ``switch``."""
    ordered = longest_first(samples)
    longer = 0 if switch is None else sum(len(sample.ids) > switch for sample in ordered)
    yield from filter(None, (ordered[:longer], ordered[longer:]))


def batches(samples: Sequence[Sample], size: int, switch: int | None = None) -> Iterator[Batch]:
    """Right-padded batches of up to ``size`` samples, longest first; see `Backbone.rope_switch` for ``switch``."""
    for group in by_frequencies(samples, switch):
        for start in range(0, len(group), size):
            yield padded(group[start : start + size])


def padded(group: Sequence[Sample]) -> Batch:
    """One right-padded batch, rows in the order given; which token pads does not matter, for it is masked."""
    lengths = torch.tensor([len(s.ids) for s in group])[:, None]
    prompts = torch.tensor([s.prompt_length for s in group])[:, None]
    position = torch.arange(int(lengths.max()))[None, :]
    input_ids = torch.zeros(len(group), int(lengths.max()), dtype=torch.long)
    for row, sample in zip(input_ids, group, strict=True):
        row[: len(sample.ids)] = torch.tensor(sample.ids)
    real = position < lengths
    return Batch(
        tuple(s.prompt_id for s in group),
        input_ids,
        real.long(),
        real & (position >= prompts),
        (position >= prompts - 1) & (position < lengths - 1),
    )
