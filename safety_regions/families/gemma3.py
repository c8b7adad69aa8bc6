"""Gemma 3: four norms per block, q and k normalised per head, local and global layers, no soft-capping.

Multimodal checkpoints have the text decoder under ``model.language_model``; the linear layers of their vision tower
are not scored.
"""

from safety_regions.families import Family

FAMILY = Family(
    name="gemma3",
    layers={"gemma3_text": "model.layers", "gemma3": "model.language_model.layers"},
    head_dim=256,
    post_norms=("post_attention_layernorm", "post_feedforward_layernorm"),
    qk_norm=True,
)
