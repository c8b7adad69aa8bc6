"""Gemma (the first): Llama's modules with a wider head and tied embeddings; norms scale by 1 + their weights."""

from safety_regions.families import Family

FAMILY = Family(name="gemma", layers={"gemma": "model.layers"}, head_dim=256)
