"""Answer the same prompts again and again without computing the blocks below the scaled ones anew.

Scaling blocks from ``first`` on changes nothing below them. While prompts are read, `Prefix` keeps what the lower
blocks gave, and in later answers to the same batches these blocks return it. Answer tokens pass through all blocks.
Results are the same bits, because the same batches give the same numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import Cache

from safety_regions.model.backbone import Backbone, attached, replaced_forwards


@dataclass
class Kept:
    """Of one batch of prompts: keys and values of each block below ``first``, and the output of the last of them."""

    layers: dict[int, Any] = field(default_factory=dict)
    output: Any = None


class Prefix:
    """What blocks below some block gave for batches of prompts: the lowest block that a range began with so far.

    Memory: for each prompt token, one hidden state, and keys and values of the blocks below.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.first: int | None = None
        self._kept: dict[bytes, Kept] = {}
        self._batch, self._known, self._cache = None, False, None

    @contextmanager
    def below(self, first: int) -> Iterator[None]:
        """Inside the `with` block, no block below ``first`` may be changed; answers reuse what is known of them."""
        if self.first is None or first < self.first:
            self.first, self._kept = first, {}
        enter = self.backbone.model.register_forward_pre_hook(self._enter, with_kwargs=True)
        blocks = list(self.backbone.blocks)[: self.first]
        with attached([enter]), replaced_forwards(blocks, self._replaced):
            yield

    def _enter(self, _module: nn.Module, _args: tuple, given: dict) -> None:
        self._cache: Cache = given["past_key_values"]
        if self._cache.get_seq_length():  # tokens of an answer
            self._batch = None
            return
        key = b"".join(given[name].cpu().numpy().tobytes() for name in ("input_ids", "attention_mask"))
        self._known = key in self._kept
        self._batch = self._kept.setdefault(key, Kept())

    def _replaced(self, layer: int, forward):
        def replaced(hidden, *args, **kwargs):
            batch = self._batch
            if batch is None:
                return forward(hidden, *args, **kwargs)
            if self._known:
                self._cache.layers[layer] = copy(batch.layers[layer])
                return batch.output if layer == self.first - 1 else hidden
            output = forward(hidden, *args, **kwargs)
            batch.layers[layer] = copy(self._cache.layers[layer])
            if layer == self.first - 1:
                batch.output = output
            return output

        return replaced
