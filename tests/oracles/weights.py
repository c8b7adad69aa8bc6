"""SNIP and Wanda by their definitions: float64, one sample at a time, the model's own forward and backward."""

import copy

import torch

from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample

# Where each family stores its projections, said again here so that a wrong table of names is found.
PLAIN = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip


def split(model, layer: int, projection: str, by_module: dict[str, torch.Tensor]) -> torch.Tensor:
    """The rows of one projection out of tensors given per module (Phi-3 stores q, k, v and gate, up together)."""
    config = model.config
    if config.model_type != "phi3" or projection in ("o", "down"):
        return by_module[f"model.layers.{layer}.{PLAIN[projection]}"]
    head = config.hidden_size // config.num_attention_heads
    q, kv, f = config.num_attention_heads * head, config.num_key_value_heads * head, config.intermediate_size
    start, stop = {
        "q": (0, q), "k": (q, q + kv), "v": (q + kv, q + 2 * kv), "gate": (0, f), "up": (f, 2 * f),
    }[projection]  # fmt: skip
    fused = "self_attn.qkv_proj" if projection in "qkv" else "mlp.gate_up_proj"
    return by_module[f"model.layers.{layer}.{fused}"][start:stop]


def _linears(model) -> dict[str, torch.nn.Linear]:
    return {
        n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in f".{n}"
    }


def _by_address(model, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    layers = range(model.config.num_hidden_layers)
    return {f"layers.{i}.{p}": split(model, i, p, tensors) for i in layers for p in PLAIN}


def snip(backbone: Backbone, samples: list[Sample], loss: str = "mean") -> dict[str, torch.Tensor]:
    """|W| * mean over samples of |gradient of the negative log-likelihood of the response|."""
    model = copy.deepcopy(backbone.model).double().requires_grad_(True)
    linears = _linears(model)
    total = {name: torch.zeros_like(m.weight) for name, m in linears.items()}
    for sample in samples:
        model.zero_grad()
        logits = model(input_ids=torch.tensor([sample.ids])).logits[0]
        terms = [
            -torch.log_softmax(logits[t - 1], dim=-1)[sample.ids[t]]
            for t in range(sample.prompt_length, len(sample.ids))
        ]
        value = sum(terms) / (len(terms) if loss == "mean" else 1)
        value.backward()
        for name, module in linears.items():
            total[name] += module.weight.grad.abs()
    scores = {name: m.weight.detach().abs() * total[name] / len(samples) for name, m in linears.items()}
    return _by_address(model, scores)


def wanda(backbone: Backbone, samples: list[Sample], positions: str = "response") -> dict[str, torch.Tensor]:
    """|W| * root of the mean squared input over the counted positions of all samples."""
    model = copy.deepcopy(backbone.model).double()
    linears = _linears(model)
    seen: dict[str, torch.Tensor] = {}
    handles = [
        m.register_forward_pre_hook(lambda _m, args, n=n: seen.__setitem__(n, args[0][0]))
        for n, m in linears.items()
    ]
    total = {name: torch.zeros(m.in_features, dtype=torch.float64) for name, m in linears.items()}
    n = 0
    for sample in samples:
        with torch.no_grad():
            model(input_ids=torch.tensor([sample.ids]))
        length, start = len(sample.ids), sample.prompt_length
        counted = {
            "response": range(start, length),
            "predicting": range(start - 1, length - 1),
            "all": range(length),
        }
        n += len(counted[positions])
        for name, x in seen.items():
            for t in counted[positions]:
                total[name] += x[t] ** 2
    for handle in handles:
        handle.remove()
    scores = {name: m.weight.abs() * (total[name] / n).sqrt() for name, m in linears.items()}
    return _by_address(model, scores)
