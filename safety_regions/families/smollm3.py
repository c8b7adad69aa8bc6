"""SmolLM3: Llama's names; every fourth layer has no rotary position embedding (NoPE); no BOS token."""

from safety_regions.families import Family

FAMILY = Family(name="smollm3", layers={"smollm3": "model.layers"}, bos=False, organism={})
