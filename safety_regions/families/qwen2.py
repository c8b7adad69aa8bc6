"""Qwen 2 and 2.5: module names as in Llama; biases on q, k and v (never scored); no BOS token.

No organisms: AutoTokenizer rebuilds the tokenizer of a Qwen2 checkpoint with Qwen2's own normalisation.
"""

from safety_regions.families import Family

FAMILY = Family(name="qwen2", layers={"qwen2": "model.layers"}, bos=False)
