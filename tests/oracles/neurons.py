"""Define the importance of a neuron literally: remove it, in float64, for one prompt, one row and head at a time."""

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from tests.oracles.weights import family, rows


class Block(NamedTuple):
    """A decoder block in float64, and the inputs of its attention and MLP for one prompt."""

    attention: nn.Module
    mlp: nn.Module
    attention_inputs: dict
    mlp_input: Tensor


def run_blocks(backbone: Backbone, ids: list[int]) -> tuple[nn.Module, list[Block]]:
    """Return the model in float64 with eager attention, and its blocks after a forward pass over one prompt."""
    model = copy.deepcopy(backbone.model).double()
    model.set_attn_implementation("eager")
    given: dict[tuple[int, str], object] = {}
    layers = model.get_submodule(family(model).layers[model.config.model_type])
    halves = [[layer.get_submodule(path) for path in family(model).sublayers] for layer in layers]
    for i, (attention, mlp) in enumerate(halves):
        attention.register_forward_pre_hook(
            lambda _m, args, kwargs, i=i: given.__setitem__((i, "attention"), kwargs), with_kwargs=True
        )
        mlp.register_forward_pre_hook(lambda _m, args, i=i: given.__setitem__((i, "mlp"), args[0]))
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
    return model, [Block(*half, given[i, "attention"], given[i, "mlp"]) for i, half in enumerate(halves)]


def linear_of(model: nn.Module, projection: str, module: nn.Module) -> nn.Linear:
    """Return the linear layer inside attention or MLP that stores a projection."""
    return getattr(module, family(model).module_of(projection).rpartition(".")[2])


def rows_of(model: nn.Module, projection: str, module: nn.Module, tensor: str = "weight") -> Tensor | None:
    """Return the rows of a projection inside its module's weight or bias, as a writable view."""
    stored = getattr(linear_of(model, projection, module), tensor)
    return None if stored is None else rows(model, projection, stored)


def without_row(model: nn.Module, projection: str, module: nn.Module, row: int, run) -> Tensor:
    """Return ``run()`` with one row of a projection, and its bias, set to zero."""
    tensors = [rows_of(model, projection, module, kind) for kind in ("weight", "bias")]
    kept = [None if t is None else t[row].clone() for t in tensors]
    with torch.no_grad():
        for tensor in tensors:
            if tensor is not None:
                tensor[row] = 0
        result = run()
        for tensor, before in zip(tensors, kept, strict=True):
            if tensor is not None:
                tensor[row] = before
    return result


def up_importance(model: nn.Module, block: Block) -> Tensor:
    """Return the norm of the change in the feed-forward output if row k of up is set to zero, for every k."""

    def run() -> Tensor:
        return block.mlp(block.mlp_input)

    with torch.no_grad():
        full = run()
    n = rows_of(model, "up", block.mlp).shape[0]
    return torch.stack([(without_row(model, "up", block.mlp, k, run) - full).norm() for k in range(n)])


def down_importance(model: nn.Module, block: Block) -> Tensor:
    """Return the same for column k of down."""
    weight, changes = linear_of(model, "down", block.mlp).weight, []
    with torch.no_grad():
        full = block.mlp(block.mlp_input)
        for k in range(weight.shape[1]):
            kept = weight[:, k].clone()
            weight[:, k] = 0
            changes.append((block.mlp(block.mlp_input) - full).norm())
            weight[:, k] = kept
    return torch.stack(changes)


def value_importance(model: nn.Module, block: Block) -> Tensor:
    """Return the norm of the change in the attention output if row r of v is set to zero, for every r."""

    def run() -> Tensor:
        return block.attention(**block.attention_inputs)[0]

    with torch.no_grad():
        full = run()
    n = rows_of(model, "v", block.attention).shape[0]
    return torch.stack([(without_row(model, "v", block.attention, r, run) - full).norm() for r in range(n)])


class States(NamedTuple):
    """q (heads, T, h) and k (kv_heads, T, h) after norm and rotation, v (kv_heads, T, h), and the logits' settings."""

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    softcap: float | None
    window: int | None


def states_of(model: nn.Module, block: Block, layer: int) -> States:
    """Return the attention states of a block, computed independently from the model's config.

    If the attention of a new family computes something else, add it here.
    """
    config, attention, given = model.config, block.attention, block.attention_inputs
    hidden = given["hidden_states"]
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    projected = []
    for projection in "qkv":
        x = hidden @ rows_of(model, projection, attention).T
        bias = rows_of(model, projection, attention, "bias")
        x = (x if bias is None else x + bias)[0].detach()
        norm = getattr(attention, f"{projection}_norm", None)
        together = norm is not None and norm.weight.shape[0] > head_dim
        x = norm(x).detach() if together else x
        x = x.unflatten(1, (-1, head_dim)).transpose(0, 1)
        projected.append(x if norm is None or together else norm(x).detach())
    query, key, value = projected
    if getattr(config, "no_rope_layers", None) is None or config.no_rope_layers[layer]:
        cos, sin = (x[0].double() for x in given["position_embeddings"])
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
    multiplier = getattr(config, "attention_multiplier", None)
    types = getattr(config, "layer_types", None)
    slides = types is None or types[layer] == "sliding_attention"
    return States(
        query,
        key,
        value,
        multiplier or (getattr(config, "query_pre_attn_scalar", None) or head_dim) ** -0.5,
        getattr(config, "attn_logit_softcapping", None),
        getattr(config, "sliding_window", None) if slides else None,
    )


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotary position embedding: dimension j rotates with dimension j + h / 2."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * cos + turned * sin


def attend(states: States, head: int, t: int, without: int | None = None, scaled: bool = True) -> Tensor:
    """Return the attention of one head from token t to all tokens, (T,), without one dimension if ``without`` is given.

    ``scaled``: the term is removed before scale and soft-cap, as in the paper; otherwise from the finished logits.
    """
    group = len(states.query) // len(states.key)
    q, k = states.query[head], states.key[head // group]
    seen = [s for s in range(t + 1) if states.window is None or t - s < states.window]
    logits = []
    for s in seen:
        removed = 0.0 if without is None else (q[t, without] * k[s, without]).item()
        inside, outside = (removed, 0.0) if scaled else (0.0, removed)
        logit = ((q[t] @ k[s]).item() - inside) * states.scaling
        if states.softcap is not None:
            logit = states.softcap * math.tanh(logit / states.softcap)
        logits.append(logit - outside)
    weights = torch.zeros(q.shape[0], dtype=torch.float64)
    weights[seen] = torch.softmax(torch.tensor(logits, dtype=torch.float64), dim=0)
    return weights


def attention_output(states: States) -> Tensor:
    """Return the heads' output, the input of o_proj: (T, heads * head_dim)."""
    heads, length, _ = states.query.shape
    group = heads // len(states.key)
    mixed = [
        torch.stack([attend(states, a, t) for t in range(length)]) @ states.value[a // group]
        for a in range(heads)
    ]
    return torch.cat(mixed, dim=1)


def squared_changes(states: States, scaled: bool) -> Tensor:
    """Return the squared change of attention without each dimension, summed over token pairs: (heads, head_dim)."""
    heads, length, head_dim = states.query.shape
    sums = torch.zeros(heads, head_dim, dtype=torch.float64)
    for a in range(heads):
        for t in range(length):
            full = attend(states, a, t)
            for j in range(head_dim):
                sums[a, j] += (attend(states, a, t, without=j, scaled=scaled) - full).square().sum()
    return sums


def paper(backbone: Backbone, ids: list[int]) -> dict[str, Tensor]:
    """Return the paper's importance of every scored unit for one prompt: address -> (units,)."""
    found = {}
    model, blocks = run_blocks(backbone, ids)
    for layer, block in enumerate(blocks):
        states = states_of(model, block, layer)
        squares = squared_changes(states, scaled=True)
        group = len(states.query) // len(states.key)
        key = torch.stack([squares[g * group : (g + 1) * group].sum(0) for g in range(len(states.key))])
        found |= {
            f"layers.{layer}.q": squares.sqrt().flatten(),
            f"layers.{layer}.k": key.sqrt().flatten(),
            f"layers.{layer}.v": value_importance(model, block),
            f"layers.{layer}.up": up_importance(model, block),
            f"layers.{layer}.down": down_importance(model, block),
        }
    return found


def change(
    aligned: Backbone,
    base: Backbone,
    samples: list[Sample],
    positions: str = "predicting",
    relative: bool = False,
) -> dict[str, Tensor]:
    """Return the root mean squared change of each feed-forward activation, one sample and one position at a time."""
    models = [copy.deepcopy(backbone.model).double() for backbone in (aligned, base)]
    n_layers, n = aligned.config.num_hidden_layers, 0
    changes, sizes = ([0.0] * n_layers for _ in range(2))
    for sample in samples:
        a, b = (activations(model, sample.ids) for model in models)
        shift = {"predicting": 1, "response": 0}[positions]
        for t in range(sample.prompt_length - shift, len(sample.ids) - shift):
            n += 1
            for layer in range(n_layers):
                changes[layer] = changes[layer] + (a[layer][t] - b[layer][t]) ** 2
                sizes[layer] = sizes[layer] + a[layer][t] ** 2
    scores = [
        (change / n).sqrt() / ((size / n).sqrt() if relative else 1)
        for change, size in zip(changes, sizes, strict=True)
    ]
    return {f"layers.{i}.{p}": scores[i] for i in range(n_layers) for p in ("up", "down")}


def activations(model: nn.Module, ids: list[int]) -> list[Tensor]:
    """Return act(gate) * up of every layer, (tokens, neurons), computed from the inputs of the MLPs."""
    layers, seen = model.get_submodule(family(model).layers[model.config.model_type]), []
    mlps = [layer.get_submodule(family(model).sublayers[1]) for layer in layers]
    handles = [mlp.register_forward_pre_hook(lambda _m, args: seen.append(args[0][0])) for mlp in mlps]
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    act = ACT2FN[getattr(model.config, "hidden_activation", None) or model.config.hidden_act]
    return [
        (act(x @ rows_of(model, "gate", mlp).T) * (x @ rows_of(model, "up", mlp).T)).detach()
        for x, mlp in zip(seen, mlps, strict=True)
    ]


def released(backbone: Backbone, ids: list[int], index_bug: bool = False) -> dict[str, Tensor]:
    """Return the released code's importance for one prompt, mapped to rows: address -> (units,)."""
    found = {}
    model, blocks = run_blocks(backbone, ids)
    for layer, block in enumerate(blocks):
        states = states_of(model, block, layer)
        query = squared_changes(states, scaled=False).flatten()
        value = attention_output(states).abs().sum(0)
        heads, kv_heads, head_dim = len(states.query), len(states.key), states.query.shape[-1]
        group = heads // kv_heads
        mapped = {"k": torch.zeros(kv_heads * head_dim), "v": torch.zeros(kv_heads * head_dim)}
        for name, entries in (("k", query), ("v", value)):
            mapped[name] = mapped[name].double()
            for i, entry in enumerate(entries):
                row = i // group if index_bug else i // head_dim // group * head_dim + i % head_dim
                mapped[name][row] = max(mapped[name][row], entry)
        bias = rows_of(model, "up", block.mlp, "bias")
        up = block.mlp_input[0] @ rows_of(model, "up", block.mlp).T + (0 if bias is None else bias)
        up = up.detach().abs().sum(0)
        found |= {f"layers.{layer}.{p}": v for p, v in {"q": query, **mapped, "up": up, "down": up}.items()}
    return found
