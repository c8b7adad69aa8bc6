"""Turn a GGUF file into an ordinary checkpoint: transformers reads and dequantises it, and it is saved in float32.

The weights are those of the quantised model. `GGUF_FILE`, next to them, names the file that they come from and its
quantisation; every file made from the checkpoint repeats this.
"""

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from safety_regions.errors import StudyError, explain
from safety_regions.formats.files import finished_in
from safety_regions.model.gguf_source import fetch_gguf, sha256_of
from safety_regions.model.loading import check_tensors, find_family, told, wrap_backbone
from safety_regions.study.checkpoints import GGUF_FILE


def convert_gguf(card: dict, directory: Path, name: str) -> dict:
    """Write the checkpoint of a card with the key ``gguf``.

    Args:
        card: a checkpoint card.
        directory: where config, weights, tokenizer, chat template and `GGUF_FILE` go.
        name: the backbone's name, for errors.

    Returns:
        What `GGUF_FILE` holds: ``source``, ``sha256``, and ``tensors``, type of quantisation -> number of tensors.

    Raises:
        StudyError: see `fetch_gguf`; also a file that is no GGUF, an architecture or quantisation that transformers
            cannot read, an unknown family, missing tensors, or no chat template.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{directory.name}.", suffix=".part", dir=directory.parent) as scratch:
        file = fetch_gguf(card["gguf"], name, Path(scratch))
        facts = {
            "source": source_of(card["gguf"]),
            "sha256": sha256_of(file),
            "tensors": _tensor_types(file, name),
        }
        model, tokenizer = _read(file, name)
        wrap_backbone(model, tokenizer, card, name)
        with finished_in(directory) as folder:
            _save(model, tokenizer, folder)
            (folder / GGUF_FILE).write_text(
                json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8"
            )
    return facts


def source_of(gguf: dict) -> str:
    """Where a GGUF file comes from, in words."""
    if "path" in gguf:
        return gguf["path"]
    package = (
        f"{gguf['wheel']} {gguf['version']} on PyPI" if "wheel" in gguf else f"{gguf['repo']} on the Hub"
    )
    return f"{package}: {gguf['file']}"


def _tensor_types(file: Path, name: str) -> dict[str, int]:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        hint = "a complete copy of the file"
        raise StudyError(
            explain(f"backbone {name}: gguf: {file.name}", told(error), "a GGUF file", hint)
        ) from None
    return dict(sorted(Counter(tensor.tensor_type.name for tensor in reader.tensors).items()))


def _read(file: Path, name: str):
    """Model in float32 on the CPU, and tokenizer."""
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        find_family(name, config.model_type)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model, report = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
        )
    except (MemoryError, StudyError):
        raise
    except Exception as error:  # the reader raises nearly every class for what it does not know
        raise StudyError(
            explain(
                f"backbone {name}: gguf: {file.name}",
                told(error),
                "an architecture and a quantisation that transformers' GGUF reader knows",
                "a file of another quantisation (Q4_0, Q8_0, F16), or the original checkpoint (`repo` or `path`)",
            )
        ) from None
    check_tensors(name, report)
    return model, tokenizer


def _save(model, tokenizer, folder: Path) -> None:
    plain = type(model)._from_config(model.config, dtype=torch.float32)
    del plain.config.quantization_config  # save_pretrained refuses a model that it takes for a quantised one
    plain.load_state_dict(model.state_dict())
    plain.generation_config.eos_token_id = tokenizer.eos_token_id
    if plain.generation_config.pad_token_id is None:
        plain.generation_config.pad_token_id = tokenizer.eos_token_id
    plain.save_pretrained(folder, max_shard_size="1000GB")
    tokenizer.save_pretrained(folder, save_jinja_files=False)
