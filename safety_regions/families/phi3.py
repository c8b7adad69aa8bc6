"""Phi-3: q, k, v fused in one matrix, and gate, up in another, in that row order."""

from safety_regions.families import Family

FAMILY = Family(
    name="phi3",
    layers={"phi3": "model.layers"},
    modules={
        "self_attn.qkv_proj": ("q", "k", "v"),
        "self_attn.o_proj": ("o",),
        "mlp.gate_up_proj": ("gate", "up"),
        "mlp.down_proj": ("down",),
    },
)
