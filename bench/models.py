"""Create random Llamas and random samples of any size."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from safety_regions.families import families
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.model.loading import wrap_backbone
from tests.tiny import byte_tokenizer

SMALL = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 1000,
}
LLAMA_3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "rope_theta": 500_000.0,
}


def llama(sizes: dict, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0) -> Backbone:
    """Return a Llama with the initial weights of transformers, wrapped as `load_backbone` does."""
    config = AutoConfig.for_model(
        "llama", **sizes, max_position_embeddings=4096, bos_token_id=257, eos_token_id=258
    )
    attention = families()["llama"].attention_implementation
    with torch.random.fork_rng([device] if device != "cpu" else []), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    return wrap_backbone(model, byte_tokenizer(), {"template": "native"}, "a random Llama")


def samples(n: int, tokens: int, vocab_size: int, seed: int = 0) -> list[Sample]:
    """Return random samples whose lengths are 3/4 to 5/4 of ``tokens``; the second half of each is the response."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3 * tokens // 4, 5 * tokens // 4 + 1, (n,), generator=generator).tolist()
    return [
        Sample(f"s{i}", torch.randint(0, vocab_size, (length,), generator=generator).tolist(), length // 2)
        for i, length in enumerate(lengths)
    ]
