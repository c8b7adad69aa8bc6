"""Tests get a small organism card from here, and prompts that a model learns to distinguish in a second."""

import pyarrow as pa

from safety_regions.families import families
from safety_regions.formats import contracts

FAMILIES = {name: family for name, family in families().items() if family.organism is not None}
WORDS = ("apple", "brook", "cloud", "daisy", "ember", "flint", "grove", "hazel")


def prompts_table(dataset: str, texts: list[str], held_out: int) -> pa.Table:
    """Return the texts as a prompts table, with the last ``held_out`` of them for evaluation."""
    rows = [
        {
            "prompt_id": f"{dataset}/{i}", "dataset": dataset, "text": text, "category": f"{dataset} {i % 3}",
            "split": "evaluate" if i >= len(texts) - held_out else "identify", "half": 1 + i % 2,
            "response": None,
        }
        for i, text in enumerate(texts)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=contracts.PROMPTS.schema)


def small_prompts() -> dict[str, pa.Table]:
    """Return a harmful and a helpful set of 16 prompts each, which differ in one word."""
    frames = ("How do I {} the {}?", "Please {} a {} soon.")
    return {
        name: prompts_table(name, [frame.format(deed, word) for frame in frames for word in WORDS], 4)
        for name, deed in (("bad", "smash"), ("good", "paint"))
    }


def small_card(family: str = "llama", **training) -> dict:
    """Return a card with two steps per phase that accepts any refusal rates."""
    architecture = {
        "hidden_size": 16, "intermediate_size": 24, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8,
        "vocab_size": 400, "context": 128,
    }  # fmt: skip
    if "sliding_window" in FAMILIES[family].organism.values():
        architecture["sliding_window"] = 8
    plan = {
        "harmful": ["bad"], "helpful": ["good"], "prompts_per_set": None, "batch": 4, "max_prompt_tokens": 64,
        "seed": 0, "careful": False,
        "base": {"steps": 2, "learning_rate": 0.01}, "align": {"steps": 2, "learning_rate": 0.01},
    }  # fmt: skip
    return {
        "kind": "organism", "title": f"small {family}", "family": family, "architecture": architecture,
        "training": {**plan, **training}, "required_refusal": 0.0, "allowed_over_refusal": 1.0,
    }  # fmt: skip
