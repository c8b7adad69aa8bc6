"""Llama 2 and 3: no biases; grouped-query attention except in Llama-2-7B and 13B."""

from safety_regions.families import Family

FAMILY = Family(name="llama", layers={"llama": "model.layers"}, organism={})
