"""Gemma 2: four norms per block, soft-capped attention (needs the eager implementation), tied embeddings."""

from safety_regions.families import Family

FAMILY = Family(
    name="gemma2",
    layers={"gemma2": "model.layers"},
    attention_implementation="eager",
    head_dim=256,
    post_norms=("post_attention_layernorm", "post_feedforward_layernorm"),
    # Every second layer uses the sliding window.
    organism={"sliding_window": "sliding_window", "query_pre_attn_scalar": "head_dim"},
)
