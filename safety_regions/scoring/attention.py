"""Change or record attention: queries and keys after norm and rotation, and the model's mask, scale and soft-cap.

transformers looks up every family's attention function in one table, `ALL_ATTENTION_FUNCTIONS`, by the name in the
config. Inside the `with` block, the backbone is set to "eager" and that name maps to a function given here, which calls
the family's own eager function. Both are restored afterwards, also after an error.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, Self

from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from safety_regions.model.backbone import Backbone

EAGER = "eager"


class Attention(NamedTuple):
    """The inputs of attention in one layer, for a batch or, without the batch axis, for one sample.

    Attributes:
        query: (batch, heads, tokens, head_dim), after norm and rotation.
        key: (batch, kv_heads, tokens, head_dim), likewise; head a uses kv head a // (heads // kv_heads).
        mask: added to the logits, (batch, 1, tokens, tokens): the model's causal mask, window and padding.
        scaling: factor on the logits.
        softcap: logits become softcap * tanh(logits / softcap), or None.
    """

    query: Tensor
    key: Tensor
    mask: Tensor
    scaling: float
    softcap: float | None

    def sample(self, index: int, length: int) -> Self:
        """One sample of the batch without its right padding, in float32."""
        query, key = (states[index, :, :length].float() for states in (self.query, self.key))
        mask = self.mask[index, :, :length, :length].float()
        return self._replace(query=query, key=key, mask=mask)

    def cap(self, logits: Tensor) -> Tensor:
        """The logits, soft-capped if the model does so."""
        return logits if self.softcap is None else (logits / self.softcap).tanh_().mul_(self.softcap)


@contextmanager
def changed_attention(backbone: Backbone, attend: Callable) -> Iterator[None]:
    """Inside the `with` block, ``attend(layer, eager, query, key, value, mask, **settings)`` is the blocks' attention.

    ``eager(query, key, value, mask, **settings)`` is that of the model's family. It returns the outputs of the heads,
    (batch, tokens, heads, head_dim), and the attention weights. For the shapes of the others, see `Attention`.
    """
    path, _ = backbone.family.sublayers
    layer_of = {id(block.get_submodule(path)): layer for layer, block in enumerate(backbone.blocks)}

    def run(module, query, key, value, attention_mask, **settings):
        eager = partial(sys.modules[type(module).__module__].eager_attention_forward, module)
        known = id(module) in layer_of
        call = partial(attend, layer_of[id(module)], eager) if known else eager
        return call(query, key, value, attention_mask, **settings)

    config, before = backbone.config, backbone.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS[EAGER] = run
    try:
        config._attn_implementation = EAGER
        yield
    finally:
        config._attn_implementation = before
        del ALL_ATTENTION_FUNCTIONS[EAGER]


@contextmanager
def watched_attention(backbone: Backbone) -> Iterator[dict[int, Attention]]:
    """Inside the `with` block, forward passes fill the yielded dict: layer -> its latest attention inputs."""
    given: dict[int, Attention] = {}

    def record(layer, eager, query, key, value, mask, **settings):
        given[layer] = Attention(query, key, mask, settings["scaling"], settings.get("softcap"))
        return eager(query, key, value, mask, **settings)

    with changed_attention(backbone, record):
        yield given
