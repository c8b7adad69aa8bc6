"""An organism's architecture: the card's sizes in the words of transformers.

The model is built by transformers' own classes, so that whatever reads a checkpoint of the family reads an
organism. Embeddings are tied to the output head: at this size they are half of the parameters or more.
"""

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from safety_regions.errors import StudyError, explain
from safety_regions.families import families

# Key of the card -> argument of a transformers config, the same in all families; what one adds stands in its file.
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
