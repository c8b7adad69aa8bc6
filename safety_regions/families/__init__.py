"""The shelf of architectures: one file per family, each a table of names and no code.

A `Family` says where a checkpoint of that architecture keeps its seven projections per decoder block, which of them
are stored fused in one matrix, which norms matter to the methods, and what an organism of it takes. A new file here
is all that a new family takes: the schemas of cards, the methods and the tests read this shelf. Nothing here imports
torch.
"""

import importlib
import pkgutil
from dataclasses import dataclass, field
from functools import cache


@dataclass(frozen=True)
class Family:
    """Facts of one architecture; module names are relative to a decoder block unless said otherwise.

    Attributes:
        name: the family's name in cards.
        layers: path to the list of decoder blocks, by ``model_type`` of the checkpoint's config; organisms are built
            with the first.
        modules: module path -> the projections it stores, in row order (one unless fused).
        attention_implementation: what transformers must use so that scores see what the model computes.
        post_norms: the norms that follow attention and MLP before the residual sum; empty where there are none. They
            cancel a factor on o, v, up or down, which SafeLayer scales (Li et al. 2024, arXiv 2408.17003, section
            3.4.3, on models without such norms).
        qk_norm: whether q and k are normalised, per head or all heads together, so that a factor on the whole
            projection is cancelled.
        logits_divisor: key of the config whose value divides the output logits, where there is one.
        head_dim: width of a head where the checkpoint's config.json names none; None: the hidden size is shared evenly
            by the heads.
        bos: whether a text begins with a BOS token.
        organism: for an organism, what its config takes beyond the sizes that every family has: argument of the
            transformers config -> key of the card's architecture. A key that not every family has becomes required.
            None: not offered for organisms.
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
    post_norms: tuple[str, ...] = ()
    qk_norm: bool = False
    logits_divisor: str | None = None
    head_dim: int | None = None
    bos: bool = True
    organism: dict[str, str] | None = None

    def module_of(self, projection: str) -> str:
        """Path of the module that stores a projection."""
        return next(path for path, stored in self.modules.items() if projection in stored)

    @property
    def sublayers(self) -> tuple[str, str]:
        """Paths of attention and MLP: the modules that hold o and down."""
        attention, mlp = (self.module_of(last).rpartition(".")[0] for last in ("o", "down"))
        return attention, mlp

    @property
    def contributions(self) -> tuple[str, ...]:
        """Paths of the modules whose outputs are added to the residual stream."""
        return self.post_norms or self.sublayers


@cache
def families() -> dict[str, Family]:
    """All families by name."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    found = [importlib.import_module(f"{__name__}.{name}").FAMILY for name in names]
    return {family.name: family for family in found}


def family_of(model_type: str) -> Family | None:
    """The family whose checkpoints call themselves ``model_type`` in config.json, or None."""
    return next((f for f in families().values() if model_type in f.layers), None)
