"""The file of the weights before alignment is the whole model, whatever alignment changes afterwards."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from safety_regions.errors import StudyError
from safety_regions.model.before import copied_weights, overwrite_weights
from safety_regions.model.loading import load_with_base
from tests.tiny import FAMILIES, byte_tokenizer, tiny_backbone, tiny_model

IDS = torch.tensor([[1, 2, 3, 4, 5]])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_with_other_weights_becomes_the_one_in_the_file(family, tmp_path):
    first, other = tiny_backbone(family), tiny_backbone(family, seed=1)
    save_file(copied_weights(first), tmp_path / "base.safetensors")
    assert first.shapes.keys() < load_file(tmp_path / "base.safetensors").keys()
    overwrite_weights(other, tmp_path / "base.safetensors")
    with torch.no_grad():
        assert torch.equal(other.model(IDS).logits, first.model(IDS).logits)


def test_the_copy_does_not_change_with_the_model():
    backbone = tiny_backbone("llama")
    kept = copied_weights(backbone)
    before = {key: weight.clone() for key, weight in kept.items()}
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            parameter.add_(1)
    assert all(torch.equal(kept[key], weight) for key, weight in before.items())


def test_a_file_without_a_weight_is_refused(tmp_path):
    weights = copied_weights(tiny_backbone("llama"))
    del weights["model.embed_tokens.weight"]
    save_file(weights, tmp_path / "base.safetensors")
    with pytest.raises(
        StudyError, match=r"embed_tokens.weight: found no such weight; expected shape \[260, 32\]"
    ):
        overwrite_weights(tiny_backbone("llama"), tmp_path / "base.safetensors")


def test_the_first_phase_of_an_organism_is_the_base_of_the_aligned_model(tmp_path):
    aligned, first = tmp_path / "organism", tiny_backbone("llama", seed=1)
    tiny_model("llama").save_pretrained(aligned)
    byte_tokenizer().save_pretrained(aligned)
    save_file(copied_weights(first), aligned / "base.safetensors")
    files, before = [aligned / "config.json"], [aligned / "base.safetensors"]
    backbone = load_with_base({"template": "native", "dtype": "bfloat16"}, files, before=before)
    assert backbone.metadata["base"] == str(before[0]) and backbone.base.model.dtype == torch.bfloat16
    for (_, weight, base), (_, other) in zip(backbone.weight_pairs(), first.weights(), strict=True):
        assert torch.equal(base, other.bfloat16()) and not torch.equal(weight, base)
    embedding = first.model.get_input_embeddings().weight.bfloat16()
    assert torch.equal(backbone.base.model.get_input_embeddings().weight, embedding)
