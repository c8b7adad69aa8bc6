"""Granite 3: Llama's names; multipliers on embeddings, attention logits, residual sums and output logits.

Not for organisms: a card has no key for the multipliers, and transformers' default attention multiplier is 1, not
head_dim ** -0.5.
"""

from safety_regions.families import Family

FAMILY = Family(name="granite", layers={"granite": "model.layers"}, logits_divisor="logits_scaling")
