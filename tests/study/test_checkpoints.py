"""The sizes that a backbone's config gives before loading are those of the loaded model."""

import json

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from safety_regions.families import families
from safety_regions.model.backbone import Backbone
from safety_regions.model.loading import wrap_backbone
from safety_regions.study.catalog import Shelf, schema, with_defaults
from safety_regions.study.checkpoints import local_problems, unit_counts
from safety_regions.training.architecture import build_model
from safety_regions.units.addresses import PROJECTIONS, address, parse_address
from tests.tiny import FAMILIES, byte_tokenizer, tiny_backbone, tiny_model
from tests.training.organisms import small_card

SHELF = Shelf("backbones", {})
LLAMA = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}


def checkpoint(folder, config: dict, family: str = "llama") -> dict:
    (folder / "config.json").write_text(json.dumps(config))
    return {"kind": "checkpoint", "family": family, "path": str(folder)}


def as_counts(backbone: Backbone) -> dict:
    """Return a backbone's sizes in the form of `unit_counts`, and check that all layers have the same shapes."""
    shapes = backbone.shapes
    places = {where: parse_address(where) for where in shapes}
    layers = 1 + max(place.layer for place in places.values())
    counts = {place.projection: tuple(shapes[where]) for where, place in places.items()}
    for projection, shape in counts.items():
        assert all(tuple(shapes[address(layer, projection)]) == shape for layer in range(layers))
    return {"layers": layers, "heads": (backbone.config.num_attention_heads,), **counts}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_config_of_a_local_checkpoint_tells_its_sizes(tmp_path, family):
    tiny_model(family).save_pretrained(tmp_path)
    card = {"family": family.rstrip("3") if family == "llama3" else family, "path": str(tmp_path)}
    expected = as_counts(tiny_backbone(family))
    assert unit_counts(card) == expected and set(expected) == {"layers", "heads", *PROJECTIONS}


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma2"])
def test_the_card_of_an_organism_tells_its_sizes(family):
    card = small_card(family)
    model = build_model(card, byte_tokenizer())
    backbone = wrap_backbone(model, byte_tokenizer(), {"template": "native"}, "organism")
    assert unit_counts(card) == as_counts(backbone)


def test_sizes_that_a_config_leaves_out():
    whole = with_defaults(SHELF.read("organism-llama"), schema("organism"))
    assert unit_counts(whole)["layers"] == 4 and unit_counts(whole)["k"] == (32, 64)
    assert unit_counts(SHELF.read("llama-3.1-8b-instruct")) == {}
    assert unit_counts({"family": "llama", "path": "nowhere"}) == {}


def test_key_heads_that_a_config_leaves_out_are_not_guessed(tmp_path):
    known = {
        "layers": 2,
        "heads": (4,),
        "gate": (48, 32),
        "up": (48, 32),
        "down": (32, 48),
        "q": (32, 32),
        "o": (32, 32),
    }
    assert unit_counts(checkpoint(tmp_path, LLAMA)) == known
    whole = known | {"k": (16, 32), "v": (16, 32)}
    sizes = LLAMA | {"num_key_value_heads": 2}
    assert unit_counts(checkpoint(tmp_path, sizes)) == whole
    assert unit_counts(checkpoint(tmp_path, {"text_config": sizes})) == whole


@pytest.mark.parametrize("family", families())
def test_the_width_of_heads_that_a_config_leaves_out_is_that_of_transformers(tmp_path, family):
    model_type = next(iter(families()[family].layers))
    sizes = LLAMA | {"num_key_value_heads": 2, "pad_token_id": 0, "vocab_size": 260}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes))
    backbone = wrap_backbone(model, byte_tokenizer(), {"template": "native"}, family)
    assert unit_counts(checkpoint(tmp_path, sizes, family)) == as_counts(backbone)


@pytest.fixture
def saved(tmp_path) -> dict:
    """Return the card of a whole checkpoint in ``tmp_path``."""
    tiny_model("llama").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    return {"kind": "checkpoint", "family": "llama", "path": str(tmp_path), "template": "native"}


INDEX = "model.safetensors.index.json"
# File -> its content, and what is said.
DAMAGED = {
    "trailing comma": ("config.json", '{"model_type": "llama",}', "config.json with broken JSON in line 1"),
    "byte-order mark": ("config.json", "\ufeff{}", "config.json with a byte-order mark"),
    "list": ("config.json", "[]", "config.json that holds no JSON object"),
    "empty": ("config.json", "", "config.json that is empty"),
    "another type": ("config.json", '{"model_type": ["llama"]}', "model_type '['llama']'"),
    "tokenizer settings": ("tokenizer_config.json", "", "tokenizer_config.json that is empty"),
    "generation": ("generation_config.json", '{"a":', "generation_config.json with broken JSON"),
    "index": (INDEX, "{", f"{INDEX} with broken JSON"),
    "no files in the index": (INDEX, '{"weight_map": ["a"]}', f"a damaged {INDEX}"),
    "a part is missing": (INDEX, '{"weight_map": {"x": "part-1.safetensors"}}', "no part-1.safetensors"),
    "pointer": ("model.safetensors", "version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_named_before_any_job(saved, tmp_path, case):
    assert list(local_problems(saved)) == []
    name, text, message = DAMAGED[case]
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert any(found.startswith(message) for found, _ in local_problems(saved))
    unit_counts(saved)


def test_pickled_weights_are_named_before_any_job(saved, tmp_path):
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert [found for found, _ in local_problems(saved)] == ["no model.safetensors"]


@pytest.mark.parametrize("size", [None, "32", 0, -1, [32]])
def test_sizes_that_are_no_numbers_are_not_known(tmp_path, size):
    sizes = LLAMA | {"num_key_value_heads": 2, "head_dim": None, "num_attention_heads": size}
    known = {"layers": 2, "gate": (48, 32), "up": (48, 32), "down": (32, 48)}
    assert unit_counts(checkpoint(tmp_path, sizes)) == known
