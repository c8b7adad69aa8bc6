"""The formulas for the importance of neurons: from the inputs of a linear layer to one number per sample and unit.

``FORMULAS[formula][projection]`` is called with the inputs of that projection. It returns a dict from projection to
importances (batch, units): ``q`` (heads * head_dim), ``k`` and ``v`` (kv_heads * head_dim), ``up`` (intermediate).
``up`` is the feed-forward neuron, which is one row of up and one column of down.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from safety_regions.methods.safeneuron.removal import softmax_changes, value_changes
from safety_regions.model.backbone import ScoredLinear
from safety_regions.scoring.attention import Attention


class Seen(NamedTuple):
    """A linear layer, its inputs (tokens, in) per sample without padding, and the attention inputs by layer."""

    linear: ScoredLinear
    inputs: Sequence[Tensor]
    attended: dict[int, Attention]


def _paper_attention(seen: Seen, options: dict) -> dict[str, Tensor]:
    attention = seen.attended.pop(seen.linear.layer)
    kv_heads, head_dim = attention.key.shape[1], attention.key.shape[3]
    weight = seen.linear.module.weight
    query = _attention_changes(attention, seen.inputs, _without_scaled)
    value = torch.stack([value_changes(x, weight, kv_heads, head_dim) for x in seen.inputs])
    # Heads do not affect each other, so the norm over a group is the norm of its heads' norms.
    key = query.unflatten(1, (kv_heads, -1)).norm(dim=2)
    return {"q": query.flatten(1), "k": key.flatten(1), "v": value.flatten(1)}


def _paper_ffn(seen: Seen, options: dict) -> dict[str, Tensor]:
    return {"up": torch.stack([x.float().norm(dim=0) for x in seen.inputs])}


def _released_attention(seen: Seen, options: dict) -> dict[str, Tensor]:
    attention = seen.attended.pop(seen.linear.layer)
    kv_heads, head_dim = attention.key.shape[1], attention.key.shape[3]
    query = _attention_changes(attention, seen.inputs, _without_unscaled).square().flatten(1)
    value = torch.stack([x.float().abs().sum(0) for x in seen.inputs])
    key, value = (kv_rows(entries, kv_heads, head_dim, options["index_bug"]) for entries in (query, value))
    return {"q": query, "k": key, "v": value}


def _released_ffn(seen: Seen, options: dict) -> dict[str, Tensor]:
    (part,) = [s for s in seen.linear.slices if s.address.endswith(".up")]
    module = seen.linear.module
    # Not module(x): this runs in a hook of the module, which would be called again.
    outputs = (linear(x, module.weight, module.bias)[:, part.start : part.stop] for x in seen.inputs)
    return {"up": torch.stack([output.float().abs().sum(0) for output in outputs])}


def kv_rows(entries: Tensor, kv_heads: int, head_dim: int, index_bug: bool) -> Tensor:
    """The largest of the entries (batch, heads * head_dim) that belong to each row of k or v: (batch, rows).

    Entry a * head_dim + j belongs to row (a // group) * head_dim + j. The released code instead divides the whole
    entry index by 4, the group size of its models, and so gets other rows. ``index_bug`` reproduces this: entry i
    belongs to row i // group.
    """
    if index_bug:
        return entries.unflatten(1, (kv_heads * head_dim, -1)).amax(2)
    return entries.unflatten(1, (kv_heads, -1, head_dim)).amax(2).flatten(1)


def _attention_changes(attention: Attention, inputs: Sequence[Tensor], remove) -> Tensor:
    samples = (attention.sample(i, len(x)) for i, x in enumerate(inputs))
    return torch.stack([softmax_changes(sample, remove) for sample in samples])


def _without_scaled(attention: Attention, logits: Tensor, product: Tensor) -> Tensor:
    return attention.cap(product.mul_(-attention.scaling).add_(logits))


def _without_unscaled(attention: Attention, logits: Tensor, product: Tensor) -> Tensor:
    return product.neg_().add_(attention.cap(logits))


FORMULAS = {
    "paper": {"o": _paper_attention, "down": _paper_ffn},
    "released": {"o": _released_attention, "up": _released_ffn},
}
