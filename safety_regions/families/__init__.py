"""The shelf of architectures: one file per family, each a table of module names and no code.

A `Family` says where a checkpoint of that architecture keeps its seven projections per decoder block, which
of them are stored fused in one matrix, and which norms matter to the methods. Nothing here imports torch.
"""

import importlib
import pkgutil
from dataclasses import dataclass, field
from functools import cache


@dataclass(frozen=True)
class Family:
    """Names of one architecture, relative to a decoder block unless said otherwise.

    Attributes:
        name: the family's name in cards.
        layers: path to the list of decoder blocks, by ``model_type`` of the checkpoint's config.
        modules: module path -> the projections it stores, in row order (one unless fused).
        attention_implementation: what transformers must use so that scores see what the model computes.
        post_norms: whether a norm follows attention and MLP before the residual sum, so that scaling
            o, v, up or down is cancelled (methods.md, section 4, architecture trap).
        qk_norm: whether q and k are normalised per head, so that scaling q or k is cancelled.
    """

    name: str
    layers: dict[str, str]
    modules: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "self_attn.q_proj": ("q",),
            "self_attn.k_proj": ("k",),
            "self_attn.v_proj": ("v",),
            "self_attn.o_proj": ("o",),
            "mlp.gate_proj": ("gate",),
            "mlp.up_proj": ("up",),
            "mlp.down_proj": ("down",),
        }
    )
    attention_implementation: str = "sdpa"
    post_norms: bool = False
    qk_norm: bool = False


@cache
def families() -> dict[str, Family]:
    """All families by name."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    found = [importlib.import_module(f"{__name__}.{name}").FAMILY for name in names]
    return {family.name: family for family in found}


def family_of(model_type: str) -> Family | None:
    """The family whose checkpoints call themselves ``model_type`` in config.json, or None."""
    return next((f for f in families().values() if model_type in f.layers), None)
