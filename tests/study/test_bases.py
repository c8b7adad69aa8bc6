"""A card may name its base: pairs that do not fit are refused before any job, and jobs depend on what they load."""

import json

import pytest

from safety_regions.study import grid
from safety_regions.study.catalog import Shelf
from safety_regions.study.checkpoints import unit_counts
from safety_regions.study.config import read_study
from safety_regions.study.resources import gpus, is_tiny, memory_mb, minutes, training_threads
from tests.study.test_config import GOOD, problems
from tests.tiny import byte_tokenizer, tiny_model

SHELF = Shelf("backbones", {})


def checkpoint(folder, family: str = "llama3", **sizes) -> dict:
    tiny_model(family, **sizes).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return {"kind": "checkpoint", "family": "llama" if family == "llama3" else family, "path": str(folder)}


def organism(**changes) -> dict:
    plan = {"harmful": ["fraud"], "helpful": ["everyday"], "align": {"steps": 2, "learning_rate": 0.1}}
    return {
        "kind": "organism",
        "title": "Aligned",
        "family": "llama",
        "base": "before",
        "training": plan,
    } | changes


def config(**cards) -> dict:
    methods = {"wanda": {}, "change": {"method": "wanda", "options": {"difference": True}}}
    return GOOD | {"backbones": ["after"], "methods": methods, "cards": {"backbones": cards}}


def test_a_pair_and_what_its_jobs_load(tmp_path):
    before, after = checkpoint(tmp_path / "before"), checkpoint(tmp_path / "after")
    study = read_study(config(after=after | {"base": "before"}, before=before))
    assert list(study.backbones) == ["after"] and set(study.models) == {"before", "after"}
    assert [study.needs_base(label) for label in study.methods] == [False, True]
    assert "base_card" not in grid.scoring(study, "after", "wanda")
    assert grid.scoring(study, "after", "change")["base_card"]["path"] == str(tmp_path / "before")


@pytest.mark.parametrize(
    "sizes, said",
    [
        ({"num_hidden_layers": 2}, "with layers 2; expected 3"),
        ({"intermediate_size": 64}, "with down .*; expected"),
        ({"vocab_size": 300}, "with vocab_size 300; expected 260"),
    ],
)
def test_a_base_of_other_shapes_or_vocabulary_is_refused(sizes, said, tmp_path):
    before, after = checkpoint(tmp_path / "before", **sizes), checkpoint(tmp_path / "after")
    import re

    found = problems(config(after=after | {"base": "before"}, before=before))
    assert re.search(f"backbones: after: base: found 'before', {said}", found), found


def test_a_base_of_another_family_an_unknown_one_and_an_organism(tmp_path):
    after = checkpoint(tmp_path / "after")
    other = checkpoint(tmp_path / "before", "qwen2")
    assert "of family qwen2" in problems(config(after=after | {"base": "before"}, before=other))
    assert "unknown backbone 'befor'" in problems(config(after=after | {"base": "befor"}, before=after))
    found = problems(config(after=after | {"base": "organism-llama"}))
    assert "a card of kind organism; expected a card of kind checkpoint" in found


def test_a_method_that_compares_with_a_base_needs_one(tmp_path):
    found = problems(config(after=checkpoint(tmp_path / "after")))
    assert "methods: change: options: difference: found 'after', which names no base" in found


def test_a_method_that_always_compares_with_a_base_needs_one(tmp_path):
    given = config(after=checkpoint(tmp_path / "after")) | {"methods": {"delta": {}}}
    assert "methods: delta: found 'after', which names no base; expected an organism" in problems(given)


def test_the_base_of_an_organism_that_starts_from_nothing_is_its_first_phase(tmp_path):
    methods = {"delta": {}, "wanda": {}, "change": {"method": "wanda", "options": {"difference": True}}}
    study = read_study(GOOD | {"backbones": ["organism-llama"], "methods": methods})
    found = {label: tuple(grid.reads_base(study, "organism-llama", label)) for label in methods}
    assert found == {"delta": (False, True), "wanda": (False, False), "change": (False, True)}
    assert "base_card" not in grid.scoring(study, "organism-llama", "delta")
    before = checkpoint(tmp_path / "before")
    study = read_study(config(after=organism(), before=before) | {"methods": methods})
    assert tuple(grid.reads_base(study, "after", "delta")) == (True, False), (
        "the checkpoint that it started from"
    )


def test_an_organism_starts_from_nothing_or_from_a_base_but_not_from_both(tmp_path):
    before = checkpoint(tmp_path / "before")
    study = read_study(config(after=organism(), before=before))
    assert study.backbones["after"]["base_card"]["path"] == str(tmp_path / "before")
    architecture = Shelf("backbones", {}).read("organism-llama")["architecture"]
    assert "after" in problems(config(after=organism(architecture=architecture), before=before))
    assert "after" in problems(config(after={k: v for k, v in organism().items() if k != "base"}))


def test_an_organism_is_rendered_and_sized_as_its_base(tmp_path):
    before = checkpoint(tmp_path / "before") | {"system_prompt": "Be brief.", "parameters": 1e9}
    card = read_study(config(after=organism(), before=before)).backbones["after"]
    found = grid.loading(card)
    assert (found["system_prompt"], found["template"]) == ("Be brief.", "native")
    assert "path" not in found
    assert unit_counts(card) == unit_counts(before)
    assert not is_tiny(card) and gpus(card) == 1 and training_threads(card) == 2
    assert memory_mb(card, kept=16) == 4000 + (4 + 1 + 16) * 1000
    assert minutes("train_organism", card) == 620


def test_training_depends_on_the_base_but_not_on_its_title(tmp_path):
    before = checkpoint(tmp_path / "before")

    def trained(**changes):
        return grid.training(read_study(config(after=organism(), before=before | changes)).backbones["after"])

    assert trained() == trained(title="Another title")
    assert trained() != trained(system_prompt="Be brief.")


def test_every_base_in_the_catalog_fits_the_card_that_names_it():
    named = {name: SHELF.read(name) for name in SHELF.names}
    pairs = [(card, named[card["base"]]) for card in named.values() if "base" in card]
    assert len(pairs) > 20
    for card, base in pairs:
        assert (card["family"], "checkpoint") == (base["family"], base["kind"])
        assert "parameters" not in card or card["parameters"] == base["parameters"]
        assert "licence" not in card or card["licence"] == base["licence"]


@pytest.mark.parametrize(
    "data, said",
    [
        (None, "no such file"),
        (b"no model", "a file that is no GGUF"),
        (b"version https://git-lfs.github.com/spec", "Git LFS"),
    ],
)
def test_a_gguf_file_is_looked_at_before_any_job(data, said, tmp_path):
    file = tmp_path / "model.gguf"
    if data is not None:
        file.write_bytes(data)
    card = {"kind": "checkpoint", "family": "llama", "gguf": {"path": str(file)}}
    assert said in problems(GOOD | {"backbones": ["mine"], "cards": {"backbones": {"mine": card}}})


@pytest.mark.parametrize(
    "gguf",
    [
        {},
        {"repo": "a/b"},
        {"wheel": "a", "version": "1", "file": "b.gguf"},
        {"path": "a.gguf", "repo": "a/b", "file": "c"},
        {"path": "a.gguf", "sha256": "abc"},
    ],
)
def test_a_gguf_source_is_complete_and_one(gguf):
    card = {"kind": "checkpoint", "family": "llama", "gguf": gguf}
    assert "mine" in problems(GOOD | {"backbones": ["mine"], "cards": {"backbones": {"mine": card}}})


def test_another_gguf_file_is_converted_again(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF one")
    card = {"kind": "checkpoint", "family": "llama", "template": "native", "gguf": {"path": str(file)}}
    before = grid.converting(card)
    file.write_bytes(b"GGUF two")
    assert grid.converting(card) != before
    assert json.dumps(grid.converting(card | {"title": "Mine"})) == json.dumps(grid.converting(card))
