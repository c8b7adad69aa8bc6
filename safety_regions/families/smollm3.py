"""SmolLM3: module names as in Llama; no rotary position embedding in every fourth layer (NoPE); no BOS token.

Its chat template lets the model think before it answers, unless it is told not to.
"""

from safety_regions.families import Family

FAMILY = Family(
    name="smollm3",
    layers={"smollm3": "model.layers"},
    bos=False,
    template_options={"enable_thinking": False},
    organism={},
)
