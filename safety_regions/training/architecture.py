"""An organism's architecture: the card's sizes in the words of transformers, one row a family.

The model is built by transformers' own classes, so that whatever reads a checkpoint of the family reads an
organism. Embeddings are tied to the output head: at this size they are half of the parameters or more.
"""

from collections.abc import Callable
from typing import NamedTuple

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from safety_regions.errors import StudyError, explain

# Key of the card -> argument of a transformers config; the same in all families.
SIZES = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "context": "max_position_embeddings",
}


class Family(NamedTuple):
    """What one family adds: config arguments from the card's architecture, and whether a text begins with BOS."""

    bos: bool
    extras: Callable[[dict], dict]


FAMILIES = {
    "llama": Family(True, lambda sizes: {}),
    # Not qwen2: AutoTokenizer rebuilds the tokenizer of a Qwen2 checkpoint with Qwen2's own normalisation.
    "qwen3": Family(False, lambda sizes: {}),
    "mistral": Family(True, lambda sizes: {"sliding_window": sizes["sliding_window"]}),
    "gemma2": Family(
        True,
        lambda sizes: {
            "sliding_window": sizes["sliding_window"],  # of every second layer
            "query_pre_attn_scalar": sizes["head_dim"],
        },
    ),
}


def build_model(card: dict, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A randomly initialised model of the card's sizes, in float32 on the CPU; draws from torch's generator.

    Raises:
        StudyError: the query heads are no multiple of the key and value heads.
    """
    sizes = card["architecture"]
    if sizes["heads"] % sizes["kv_heads"]:
        raise StudyError(
            explain(
                f"organism '{card['title']}': architecture",
                f"{sizes['heads']} heads and {sizes['kv_heads']} kv_heads",
                "heads to be a multiple of kv_heads",
            )
        )
    config = AutoConfig.for_model(
        card["family"],
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
        **{SIZES[key]: sizes[key] for key in SIZES},
        **FAMILIES[card["family"]].extras(sizes),
    )
    return AutoModelForCausalLM.from_config(config)
