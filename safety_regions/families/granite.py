"""Granite 3: module names as in Llama; multipliers on embeddings, attention logits, residual sums and output logits.

No organisms: a card has no key for the multipliers, and the default attention multiplier of transformers is 1 instead
of head_dim ** -0.5.
"""

from safety_regions.families import Family

FAMILY = Family(name="granite", layers={"granite": "model.layers"}, logits_divisor="logits_scaling")
