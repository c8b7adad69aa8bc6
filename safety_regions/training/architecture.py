"""Build an organism's model: translate the card's sizes into a transformers config.

The model uses transformers' own classes, so any tool that reads checkpoints of the family can read an organism.
Embeddings are tied to the output head, because at this size they are half of the parameters or more.
"""

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from safety_regions.errors import StudyError, explain
from safety_regions.families import families

# Key of the card -> argument of a transformers config, for all families; further arguments are in the family's file.
SIZES = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "context": "max_position_embeddings",
}


def build_model(card: dict, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A randomly initialised model with the card's sizes, in float32 on the CPU; uses torch's global generator.

    Raises:
        StudyError: the number of query heads is not a multiple of the number of key and value heads.
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
    family = families()[card["family"]]
    config = AutoConfig.for_model(
        next(iter(family.layers)),
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
        **{SIZES[key]: sizes[key] for key in SIZES},
        **{argument: sizes[key] for argument, key in family.organism.items()},
    )
    return AutoModelForCausalLM.from_config(config)
