"""SmolLM3: module names as in Llama; no rotary position embedding in every fourth layer (NoPE); no BOS token."""

from safety_regions.families import Family

FAMILY = Family(name="smollm3", layers={"smollm3": "model.layers"}, bos=False, organism={})
