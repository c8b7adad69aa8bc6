"""Gemma 3: four norms per block, q and k normalised per head, local and global layers, no soft-cap.

The multimodal checkpoints keep the text decoder below ``model.language_model``; their vision tower holds
linear layers too, which the path leaves out.
"""

from safety_regions.families import Family

FAMILY = Family(
    name="gemma3",
    layers={"gemma3_text": "model.layers", "gemma3": "model.language_model.layers"},
    head_dim=256,
    post_norms=("post_attention_layernorm", "post_feedforward_layernorm"),
    qk_norm=True,
)
