"""Mistral: module names as in Llama; sliding-window attention in some versions."""

from safety_regions.families import Family

FAMILY = Family(
    name="mistral",
    layers={"mistral": "model.layers"},
    organism={"sliding_window": "sliding_window"},
)
