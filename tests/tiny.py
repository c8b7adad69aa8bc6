"""Create tiny random backbones of every family, for tests."""

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from safety_regions.families import families, family_of
from safety_regions.model.backbone import Backbone
from safety_regions.model.loading import load_backbone, wrap_backbone

SIZES = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "pad_token_id": 256,
    "bos_token_id": 257,
    "eos_token_id": 258,
}
# Name -> changes to `SIZES`, for families whose features need other sizes.
SPECIAL = {
    "llama": {"model_type": "llama", "num_key_value_heads": 4},
    "llama3": {"model_type": "llama", "tie_word_embeddings": False},
    "mistral": {"model_type": "mistral", "sliding_window": 7},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 12},
    "gemma2": {"model_type": "gemma2", "head_dim": 12, "sliding_window": 7, "query_pre_attn_scalar": 12},
    "gemma3": {"model_type": "gemma3_text", "head_dim": 12, "sliding_window": 7, "query_pre_attn_scalar": 12},
    "phi3": {"model_type": "phi3", "original_max_position_embeddings": 256},
    "smollm3": {"model_type": "smollm3", "no_rope_layer_interval": 2},
    "granite": {
        "model_type": "granite",
        "embedding_multiplier": 2.0,
        "attention_multiplier": 0.25,
        "residual_multiplier": 0.7,
        "logits_scaling": 3.0,
    },
}


def _every_family() -> dict[str, dict]:
    """Return the special backbones, and one with plain sizes for each family that has no special one."""
    covered = {family_of(sizes["model_type"]).name for sizes in SPECIAL.values()}
    plain = {
        name: {"model_type": next(iter(f.layers))} for name, f in families().items() if name not in covered
    }
    return SPECIAL | plain


FAMILIES = _every_family()
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per byte, no BOS, and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<bos>", "<eos>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    fast.chat_template = TEMPLATE
    return fast


def tiny_model(family: str, seed: int = 0, dtype: torch.dtype = torch.float32, **changes):
    """Return a model whose weights, norms and biases are all random; none keeps an initial value of 0 or 1."""
    sizes = {**SIZES, **FAMILIES[family], **changes}
    config = AutoConfig.for_model(**sizes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=0.1 * (parameter.ndim == 1), std=0.15)
    return model.to(dtype)


def tiny_backbone(family: str, seed: int = 0, dtype: torch.dtype = torch.float32, **changes) -> Backbone:
    card = {"template": "native"}
    return wrap_backbone(tiny_model(family, seed, dtype, **changes), byte_tokenizer(), card, f"tiny {family}")


def load_on_cpu(files: Sequence[Path], **card) -> Backbone:
    """Load the backbone of these files and card on the CPU, so that its numbers do not depend on the machine's GPUs."""
    with patch("torch.cuda.is_available", return_value=False):
        return load_backbone(card, files)
