"""OLMo 2: norms after attention and MLP instead of before them; q and k normalised over all heads together."""

from safety_regions.families import Family

FAMILY = Family(
    name="olmo2",
    layers={"olmo2": "model.layers"},
    post_norms=("post_attention_layernorm", "post_feedforward_layernorm"),
    qk_norm=True,
    organism={},
)
