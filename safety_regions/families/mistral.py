"""Mistral: Llama's names; sliding-window attention in some versions."""

from safety_regions.families import Family

FAMILY = Family(
    name="mistral",
    layers={"mistral": "model.layers"},
    organism={"sliding_window": "sliding_window"},
)
