"""Model families (architectures): one file per family, each a table of names without code.

A `Family` describes where a checkpoint of that architecture stores the seven projections of each decoder block, which
of them are fused in one matrix, which norms matter to the methods, and what an organism of the family needs. To add a
family, add a file here: card schemas, methods and tests find it automatically. Nothing here imports torch.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache


@dataclass(frozen=True)
class Family:
    """Facts about one architecture; module names are relative to a decoder block unless stated otherwise.

    Attributes:
        name: name of the family in cards.
        layers: ``model_type`` of the checkpoint's config -> path to the list of decoder blocks; organisms are built
            with the first ``model_type``.
        modules: module path -> the projections stored in it, in row order (one unless fused).
        attention_implementation: the attention implementation of transformers that computes exactly what the model
            defines, so that scores are correct.
        post_norms: norms applied to the outputs of attention and MLP before the residual sum; empty if there are none.
            They cancel a factor on o, v, up or down. SafeLayer scales these projections (Li et al. 2024, arXiv
            2408.17003, section 3.4.3, on models without such norms).
        qk_norm: whether q and k are normalised (per head or over all heads), which cancels a factor on the whole
            projection.
        logits_divisor: key of the config whose value divides the output logits, if there is one.
        head_dim: dimension of a head if the checkpoint's config.json does not give it; None: the hidden size divided
            by the number of heads.
        bos: whether a text begins with a BOS token.
        template_options: variables for the chat template that a study wants unless a card says otherwise, such as no
            thinking before the answer.
        organism: additional arguments of the transformers config for an organism: argument -> key of the card's
            ``architecture``. Keys that not all families have become required in the card. None: the family does not
            support organisms.
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
    template_options: Mapping[str, object] = field(default_factory=dict)
    organism: dict[str, str] | None = None

    def module_of(self, projection: str) -> str:
        """Path of the module that contains a projection."""
        return next(path for path, stored in self.modules.items() if projection in stored)

    @property
    def sublayers(self) -> tuple[str, str]:
        """Paths of attention and MLP: the parent modules of o and down."""
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
    """The family of checkpoints with this ``model_type`` in config.json, or None."""
    return next((f for f in families().values() if model_type in f.layers), None)
