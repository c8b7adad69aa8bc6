"""Scale a range of decoder blocks, and restore the backbone bit for bit afterwards.

``weights`` multiplies the seven projections of each block, as Li et al. 2024 do (arXiv 2408.17003, section 3.4.3);
biases, norms and embeddings do not change. Two architectures undo part of this: a norm after attention and MLP
(Gemma 2 and 3, OLMo 2) cancels any factor on v, o, up and down, and a norm on queries and keys (Qwen 3, Gemma 3,
OLMo 2) cancels a factor on q and k. None of the paper's models has either. ``residual`` instead multiplies what
attention and MLP add to the residual stream, after such a norm if there is one, so it has the same effect in every
family.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from safety_regions.families import Family
from safety_regions.methods.safelayer.onset import Span
from safety_regions.model.backbone import Backbone, attached


def scale_target(family: Family, asked: str) -> str:
    """``weights`` or ``residual``; "auto" is residual if the family's post-norms cancel a factor on the weights."""
    if asked != "auto":
        return asked
    return "residual" if family.post_norms else "weights"


@contextmanager
def scaled(
    backbone: Backbone, alpha: float, span: Span, target: str = "weights", norms: bool = False
) -> Iterator[None]:
    """Scale the decoder blocks ``span`` by ``alpha`` inside the `with` block; restore them also after an error.

    Args:
        backbone: its weights are changed in place; a copy of the weights of the range is held meanwhile.
        alpha: factor, more than 0.
        span: decoder blocks, 0-based, both ends included.
        target: "weights" or "residual".
        norms: also multiply the output of every norm in these blocks.
    """
    blocks = backbone.blocks[span.first : span.last + 1]
    with ExitStack() as stack:
        if target == "weights":
            layers = range(span.first, span.last + 1)
            stack.enter_context(
                _scaled_weights([x.module for x in backbone.linears if x.layer in layers], alpha)
            )
        else:
            parts = [block.get_submodule(name) for block in blocks for name in backbone.family.contributions]
            stack.enter_context(_scaled_outputs(parts, alpha))
        if norms:
            stack.enter_context(_scaled_outputs([m for block in blocks for m in _norms(block)], alpha))
        yield


@contextmanager
def _scaled_weights(linears: list[nn.Linear], alpha: float) -> Iterator[None]:
    # Restore from copies, not by division: in bfloat16 (w * a) / a often differs from w.
    saved = [linear.weight.detach().clone() for linear in linears]
    try:
        with torch.no_grad():
            for linear in linears:
                linear.weight.mul_(alpha)
        yield
    finally:
        with torch.no_grad():
            for linear, weight in zip(linears, saved, strict=True):
                linear.weight.copy_(weight)


@contextmanager
def _scaled_outputs(modules: list[nn.Module], alpha: float) -> Iterator[None]:
    def hook(_module, _args, output: Tensor | tuple) -> Tensor | tuple:
        # Attention modules return a tuple of their output and the attention weights.
        return (output[0] * alpha, *output[1:]) if isinstance(output, tuple) else output * alpha

    with attached([module.register_forward_hook(hook) for module in modules]):
        yield


def _norms(block: nn.Module) -> list[nn.Module]:
    """Modules whose weight is a vector. Their output is scaled, not the weight: Gemma stores a norm's gain minus 1."""
    weights = ((module, getattr(module, "weight", None)) for module in block.modules())
    return [module for module, weight in weights if isinstance(weight, nn.Parameter) and weight.ndim == 1]
