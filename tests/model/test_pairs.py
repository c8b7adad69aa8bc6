"""A checkpoint and its base have the same shapes and the same vocabulary, or a job says so before any other."""

import json

import pytest

from safety_regions.errors import StudyError
from safety_regions.model.pairs import compare_pair
from tests.tiny import byte_tokenizer, tiny_model


def checkpoint(folder, **sizes) -> dict:
    tiny_model("llama3", **sizes).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return {"path": str(folder)}


def edit_tokens(folder, change) -> None:
    file = folder / "tokenizer.json"
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))


def compared(tmp_path, **sizes) -> dict:
    base = checkpoint(tmp_path / "base", **sizes)
    return compare_pair(checkpoint(tmp_path / "own") | {"base_card": base}, [], [], "mine")


def test_what_the_two_have_in_common(tmp_path):
    found = compared(tmp_path)
    assert (found["num_hidden_layers"], found["vocab_size"], found["tokens"]) == (3, 260, 259)


@pytest.mark.parametrize("key", ["num_hidden_layers", "intermediate_size", "vocab_size"])
def test_a_size_that_differs(key, tmp_path):
    with pytest.raises(StudyError, match=f"backbone mine: base: found {key} 8; expected"):
        compared(tmp_path, **{key: 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2})


def test_a_token_with_another_id(tmp_path):
    card = checkpoint(tmp_path / "own") | {"base_card": checkpoint(tmp_path / "base")}

    def swap(found):
        vocabulary = found["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    edit_tokens(tmp_path / "base", swap)
    with pytest.raises(StudyError, match="2 tokens with other ids"):
        compare_pair(card, [], [], "mine")


def test_tokens_that_only_alignment_added_do_not_matter(tmp_path):
    card = checkpoint(tmp_path / "own") | {"base_card": checkpoint(tmp_path / "base")}
    edit_tokens(tmp_path / "base", lambda found: found["added_tokens"].pop())
    assert compare_pair(card, [], [], "mine")["tokens"] == 258
