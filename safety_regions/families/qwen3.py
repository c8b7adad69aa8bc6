"""Qwen 3: module names as in Llama; q and k normalised per head; heads x head_dim may differ from the hidden size.

Its chat template lets the model think before it answers, unless it is told not to.
"""

from safety_regions.families import Family

FAMILY = Family(
    name="qwen3",
    layers={"qwen3": "model.layers"},
    qk_norm=True,
    head_dim=128,
    bos=False,
    template_options={"enable_thinking": False},
    organism={},
)
