"""What attention is given: queries and keys after norm and rotation, and the mask, scale and soft-cap of the model.

transformers sends every family's attention through one table of functions, `ALL_ATTENTION_FUNCTIONS`, under the
name in the config. Within a `with`, the backbone is set to "eager" and that name leads to a recorder, which hands
everything on to the family's own eager function; afterwards both are as before, also after an error.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from safety_regions.model.backbone import Backbone

EAGER = "eager"


class Attention(NamedTuple):
    """What the attention of one layer works on, for a batch or, without the batch axis, for one sample.

    Attributes:
        query: (batch, heads, tokens, head_dim), after norm and rotation.
        key: (batch, kv_heads, tokens, head_dim), likewise; head a reads kv head a // (heads // kv_heads).
        mask: added to the logits, (batch, 1, tokens, tokens): causal, window and padding as the model has them.
        scaling: factor of the logits.
        softcap: logits become softcap * tanh(logits / softcap), or None.
    """

    query: Tensor
    key: Tensor
    mask: Tensor
    scaling: float
    softcap: float | None

    def sample(self, index: int, length: int) -> Self:
        """One sample of the batch, its right padding cut off, in float32."""
        query, key = (states[index, :, :length].float() for states in (self.query, self.key))
        mask = self.mask[index, :, :length, :length].float()
        return self._replace(query=query, key=key, mask=mask)

    def cap(self, logits: Tensor) -> Tensor:
        """Logits, soft-capped where the model does it."""
        return logits if self.softcap is None else (logits / self.softcap).tanh_().mul_(self.softcap)


@contextmanager
def watched_attention(backbone: Backbone) -> Iterator[dict[int, Attention]]:
    """What each decoder block's attention was last given, by layer, filled during forward passes in the block."""
    path, _ = backbone.family.sublayers
    layer_of = {id(block.get_submodule(path)): layer for layer, block in enumerate(backbone.blocks)}
    given: dict[int, Attention] = {}

    def record(module, query, key, value, attention_mask, **settings):
        if id(module) in layer_of:
            scaling, softcap = settings["scaling"], settings.get("softcap")
            given[layer_of[id(module)]] = Attention(query, key, attention_mask, scaling, softcap)
        compute = sys.modules[type(module).__module__].eager_attention_forward
        return compute(module, query, key, value, attention_mask, **settings)

    config, before = backbone.config, backbone.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS[EAGER] = record
    try:
        config._attn_implementation = EAGER
        yield given
    finally:
        config._attn_implementation = before
        del ALL_ATTENTION_FUNCTIONS[EAGER]
