"""The effect of removing one unit, in closed form instead of one forward pass per neuron."""

from collections.abc import Callable

import torch
from torch import Tensor

from safety_regions.scoring.attention import Attention

# Numbers in one tensor of removals, by device: on the CPU it fits in the cache (twice as fast as larger tensors),
# on a GPU it is large enough to keep the device busy (64 MiB).
ENTRIES = {"cpu": 1 << 18, "cuda": 1 << 24}
# (attention of a sample, scaled logits before soft-cap and mask, q_j k_j^T) -> soft-capped logits without unit j.
Remove = Callable[[Attention, Tensor, Tensor], Tensor]


def softmax_changes(attention: Attention, remove: Remove, entries: int | None = None) -> Tensor:
    """How much removing one dimension of one head changes the attention weights: float32, (heads, head_dim).

    For head a and dimension j, with q and k as the model multiplies them,

        || softmax(logits of a without q[:, j] k[:, j]^T) - softmax(logits of a) ||  over tokens x tokens.

    Everything is recomputed in float32 from the model's states, whatever its dtype. As many dimensions and heads are
    processed at once as fit in ``entries`` numbers, but at least one. Memory is at most three float32 tensors of
    max(entries, tokens^2) numbers, plus three of tokens^2 numbers for each head processed. A difference of two float32
    probabilities is exact to about 1e-7, so smaller importances are rounding errors.

    Args:
        attention: of one sample, (heads, tokens, head_dim) and (kv_heads, tokens, head_dim).
        remove: computes the logits without the unit.
        entries: numbers in one tensor of removals, by default `ENTRIES`; affects memory, not results.
    """
    n_heads, n_tokens, head_dim = attention.query.shape
    query, key = attention.query.mT, attention.key.mT
    group = n_heads // len(key)
    changes = torch.empty(n_heads, head_dim, device=query.device)
    matrices = max(1, (entries or ENTRIES.get(query.device.type, ENTRIES["cuda"])) // n_tokens**2)
    for heads in torch.arange(n_heads).split(max(1, matrices // head_dim)):
        q, k = query[heads], key[heads // group]
        logits = (q.mT @ k * attention.scaling)[:, None]
        before = (attention.cap(logits) + attention.mask).softmax(-1)
        for dims in torch.arange(head_dim).split(max(1, matrices // len(heads))):
            product = q[:, dims, :, None] * k[:, dims, None, :]
            after = remove(attention, logits, product).add_(attention.mask).softmax(-1)
            changes[heads[:, None], dims] = torch.linalg.vector_norm(after.sub_(before), dim=(-2, -1))
    return changes


def value_changes(mixed: Tensor, weight: Tensor, kv_heads: int, head_dim: int) -> Tensor:
    """How much removing one unit of v changes the attention block's output: float32, (kv_heads, head_dim).

    Every head a of the group uses the unit (kv head g, dimension j). Its attention-weighted sum c_a, one number per
    token, reaches the output through column W_a = W_O[:, a * head_dim + j]. So

        || sum_a c_a W_a^T ||^2 = sum_{a, b in the group} <c_a, c_b> <W_a, W_b>

    Args:
        mixed: (tokens, heads * head_dim), the input of o_proj.
        weight: (hidden, heads * head_dim), the weight of o_proj.
    """
    products = [
        torch.einsum("tgaj,tgbj->gjab", grouped, grouped)
        for grouped in (m.float().unflatten(1, (kv_heads, -1, head_dim)) for m in (mixed, weight))
    ]
    # This double sum is a squared norm; rounding may make it slightly negative.
    return (products[0] * products[1]).sum((-2, -1)).clamp_min(0).sqrt()
