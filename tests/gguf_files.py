"""Write the tiny Llama as a quantised GGUF file, and a package index with a wheel that holds it, for tests."""

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gguf
import numpy as np
from tokenizers import pre_tokenizers

from safety_regions.model.backbone import Backbone
from tests.tiny import TEMPLATE, tiny_backbone

NAMES = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
WHEEL = "tiny_weights-1.2-py3-none-any.whl"
INSIDE = "tiny_weights/tiny.gguf"


def quantisable() -> Backbone:
    """Return a tiny Llama whose rows are multiples of the 32 weights of a block."""
    return tiny_backbone("llama3", intermediate_size=64, vocab_size=261, tie_word_embeddings=False)


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of q or k as llama.cpp stores them: the halves of a head are interleaved."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path, backbone: Backbone, architecture: str = "llama", template: str | None = TEMPLATE
) -> dict[str, np.ndarray]:
    """Write the backbone's weights in Q8_0 and its norms in F32; return address -> the dequantised weights."""
    config, writer = backbone.config, gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_rope_dimension_count(backbone.head_dim)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, template)
    found, heads = {}, {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    for address, weight in backbone.weights():
        _, layer, projection = address.split(".")
        values = weight.numpy()
        stored = permuted(values, heads[projection]) if projection in heads else values
        _add(writer, f"blk.{layer}.{NAMES[projection]}.weight", stored)
        found[address] = _rounded(values)
    tensors = backbone.model.state_dict()
    _add(writer, "token_embd.weight", tensors["model.embed_tokens.weight"].numpy())
    _add(writer, "output.weight", tensors["lm_head.weight"].numpy())
    writer.add_tensor("output_norm.weight", tensors["model.norm.weight"].numpy())
    for layer in range(config.num_hidden_layers):
        for name, norm in (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")):
            writer.add_tensor(
                f"blk.{layer}.{name}.weight", tensors[f"model.layers.{layer}.{norm}.weight"].numpy()
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def _add_tokenizer(writer: gguf.GGUFWriter, template: str | None) -> None:
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*letters, *special])
    writer.add_token_types([gguf.TokenType.NORMAL] * len(letters) + [gguf.TokenType.CONTROL] * len(special))
    writer.add_token_merges(["t h"])
    ids = {name: len(letters) + number for number, name in enumerate(special)}
    writer.add_pad_token_id(ids["<pad>"])
    writer.add_bos_token_id(ids["<bos>"])
    writer.add_eos_token_id(ids["<eos>"])
    writer.add_unk_token_id(ids["<unk>"])
    if template is not None:
        writer.add_chat_template(template)


def _add(writer: gguf.GGUFWriter, name: str, weight: np.ndarray) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)


def _rounded(weight: np.ndarray) -> np.ndarray:
    kind = gguf.GGMLQuantizationType.Q8_0
    return gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind)


@contextmanager
def package_index(folder: Path, file: Path) -> Iterator[str]:
    """Serve a package index on loopback whose only package is a wheel with the file inside; yield its address.

    The wheel needs a package that the index lacks, and its only module fails if it is imported.
    """
    shelf = folder / "simple" / "tiny-weights"
    shelf.mkdir(parents=True)
    with zipfile.ZipFile(shelf / WHEEL, "w") as wheel:
        wheel.write(file, INSIDE)
        wheel.writestr("tiny_weights/__init__.py", "raise SystemExit('imported')\n")
        info = "tiny_weights-1.2.dist-info"
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.2\nRequires-Dist: missing\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256((shelf / WHEEL).read_bytes()).hexdigest()
    (shelf / "index.html").write_text(f'<a href="{WHEEL}#sha256={digest}">{WHEEL}</a>')
    handler = partial(_Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
