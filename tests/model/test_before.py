"""The file of the weights before alignment is the whole model, whatever alignment changes afterwards."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from safety_regions.errors import StudyError
from safety_regions.methods import change_score
from safety_regions.model import loading
from safety_regions.model.backbone import Backbone
from safety_regions.model.before import copied_weights, overwrite_weights
from safety_regions.model.loading import load_with_base
from safety_regions.scoring.samples import Samples
from tests.methods.test_weights import samples_of
from tests.tiny import FAMILIES, byte_tokenizer, tiny_backbone, tiny_model
from tests.two_gpus import spread

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


def first_phase() -> Backbone:
    return tiny_backbone("llama", seed=1, tie_word_embeddings=False)


def organism(folder) -> tuple[dict, list, list]:
    """Write an organism; return its card, its files, and the file of its weights before alignment."""
    tiny_model("llama", tie_word_embeddings=False).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    save_file(copied_weights(first_phase()), folder / "base.safetensors")
    return (
        {"template": "native", "dtype": "bfloat16"},
        [folder / "config.json"],
        [folder / "base.safetensors"],
    )


def files_behind(backbone) -> set[bool]:
    """Return whether the weights of a model are in files: {True}, {False}, or both."""
    return {bool(parameter.untyped_storage().filename) for parameter in backbone.model.parameters()}


def test_two_models_that_do_not_fit_in_memory_are_in_files_and_score_the_same(tmp_path, capsys):
    card, files, before = organism(tmp_path)
    beside = load_with_base(card, files, before=before)
    parked = load_with_base(card, files, before=before, memory=1, scratch=tmp_path)
    assert files_behind(beside) == files_behind(beside.base) == {False}
    assert files_behind(parked) == files_behind(parked.base) == {True}
    assert capsys.readouterr().out.count("limited memory") == 1
    samples, options = (
        Samples(samples_of(3), scratch=tmp_path),
        {"positions": "predicting", "relative": False},
    )
    expected, found = (change_score.gather(one, samples, options) for one in (beside, parked))
    assert all(torch.equal(found[where], values) and values.any() for where, values in expected.items())
    for (_, *plain), (_, *own) in zip(beside.weight_pairs(), parked.weight_pairs(), strict=True):
        assert all(map(torch.equal, plain, own))


@pytest.mark.parametrize("room", ["gpus", "host", "none"])
def test_a_base_that_does_not_fit_on_the_gpus_is_on_the_cpu(room, tmp_path, monkeypatch):
    card, files, before = organism(tmp_path)
    load, asked = loading.load_backbone, []
    wanted = {"gpus": {"cpu", "cuda"}, "host": {"cpu"}, "none": set()}[room]
    monkeypatch.setattr(loading, "free_bytes", lambda device, _: 1 << 40 if device.type in wanted else 0)
    aligned = load(card, files)

    def loaded(card, files, on_gpus=True):
        asked.append(on_gpus)
        return aligned if len(asked) == 1 else load(card, files)

    monkeypatch.setattr(loading, "load_backbone", loaded)
    with spread(aligned):
        backbone = load_with_base(card, files, before=before, scratch=tmp_path)
    assert asked == [True, room == "gpus"]
    assert files_behind(backbone) == {False} and files_behind(backbone.base) == {room == "none"}


def test_the_first_phase_of_an_organism_is_the_base_of_the_aligned_model(tmp_path):
    first = first_phase()
    card, files, before = organism(tmp_path)
    backbone = load_with_base(card, files, before=before)
    assert backbone.metadata["base"] == str(before[0]) and backbone.base.model.dtype == torch.bfloat16
    for (_, weight, base), (_, other) in zip(backbone.weight_pairs(), first.weights(), strict=True):
        assert torch.equal(base, other.bfloat16()) and not torch.equal(weight, base)
    embedding = first.model.get_input_embeddings().weight.bfloat16()
    assert torch.equal(backbone.base.model.get_input_embeddings().weight, embedding)
