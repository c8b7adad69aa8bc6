"""The CARDs of methods are checked, and no code outside methods/ names a single method."""

import ast
import re
from pathlib import Path

import pytest

from safety_regions.errors import StudyError
from safety_regions.methods import load_method, load_select, load_sweep
from safety_regions.study import method_shelf
from safety_regions.study.code_version import Symbol, reached
from safety_regions.study.method_shelf import method_cards, method_module, own_selection
from safety_regions.units.granularity import GRANULARITIES
from tests.paths import ROOT

CONTROL_NAMES = ROOT / "safety_regions/units/behaviour.py"
"""Controls of a region have names of their own, among them that of a data-free method."""

CARD = {"title": "Toy", "granularity": "weight", "selections": ["row-0.05"]}
OWN = {"pattern": "best", "example": "best", "description": "the best"}
FLAGS = ("sweep", "intersects", "by_score", "contiguous")


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Yield a function that makes a folder of methods with one method, which has the given CARD."""

    def make(card) -> dict:
        (tmp_path / "toy.py").write_text(f"CARD = {card}\n")
        monkeypatch.setattr(method_shelf, "SHELF", tmp_path)
        for cached in (method_cards, method_shelf._files):
            cached.cache_clear()
        return method_cards()

    yield make
    monkeypatch.undo()
    for cached in (method_cards, method_shelf._files):
        cached.cache_clear()


def test_every_granularity_is_a_method_s():
    assert {card["granularity"] for card in method_cards().values()} == set(GRANULARITIES)


def test_a_card_can_name_the_projections_that_are_scored(shelf):
    shelf({**CARD, "granularity": "neuron", "selections": ["matrix-0.1"], "projections": ["up", "down"]})
    kind = method_shelf.granularity_of("toy")
    assert kind.projections == ("up", "down") and kind.scopes == GRANULARITIES["neuron"].scopes
    shelf({**CARD, "granularity": "neuron"})
    assert method_shelf.granularity_of("toy") == GRANULARITIES["neuron"]


def test_defaults_are_filled_in(shelf):
    card = shelf({**CARD, "own_selections": {"best": OWN}})["toy"]
    assert (card["streams"], card["data_free"], card["contrast"], card["adapter"]) == (False,) * 4
    assert card["options"] == card["presets"] == card["kept"] == {}
    assert own_selection("toy", "best") == {**OWN, **dict.fromkeys(FLAGS, False)}
    assert own_selection("toy", "row-0.05") is None


@pytest.mark.parametrize("change, words", [
    ({"granularity": "neurone"}, ["granularity", "neurone", "'neuron'"]),
    ({"streaming": True}, ["unknown key 'streaming'", "'streams'"]),
    ({"selections": []}, ["selections", "at least 1"]),
    ({"options": {"beta": {"default": 1}}}, ["options: beta", "no 'description'"]),
    ({"contrast": True}, ["no option 'contrast'"]),
    ({"sweep": {"option": "asked", "role": "utility"}}, ["no option 'asked'"]),
    ({"own_selections": {"best": OWN | {"example": "worst"}}}, ["example 'worst'", "matches best"]),
    ({"own_selections": {"best": OWN | {"pattern": "row-0.1", "example": "row-0.1"}}}, ["row-0.1", "rank"]),
    ({"own_selections": {"best": OWN | {"sweep": True}}}, ["no sweep"]),
    ({"granularity": "neuron", "projections": ["up", "gate"]}, ["projections", "'gate'", "q, k, v, up, down"]),
])  # fmt: skip
def test_bad_cards_say_what_to_change(shelf, change, words):
    with pytest.raises(StudyError) as raised:
        shelf(CARD | change)
    assert all(word in str(raised.value) for word in ["toy.py: CARD", *words]), str(raised.value)


@pytest.mark.parametrize("card, words", [("dict(title=1)", "only literals"), ("0\nCARDS = {}", "found 0")])
def test_a_card_is_a_literal_dict(shelf, card, words):
    with pytest.raises(StudyError, match=words):
        shelf(card)


@pytest.mark.parametrize("name", method_cards())
def test_methods_have_what_their_card_promises(name):
    card, method = method_cards()[name], load_method(name)
    assert method.granularity.name == card["granularity"]
    if card["own_selections"]:
        assert callable(load_select(name))
    if "sweep" in card:
        assert callable(load_sweep(name))


@pytest.mark.slow
def test_no_script_reads_cards():
    """No script reads a CARD, since code versions leave out its values: jobs get them through params."""
    readers = {
        script.name
        for script in (ROOT / "workflow" / "scripts").glob("*.py")
        if Symbol("safety_regions.study.method_shelf", "method_cards") in reached(script)
    }
    assert not readers


@pytest.mark.slow
def test_names_of_single_methods_stand_on_the_shelf_only():
    """No string of the package outside methods/, and no word of a rule or script, is the name of a method."""
    found = []
    names = set(method_cards()) - {"random", "heads", "direction"}  # ordinary words that other code uses
    for path in (ROOT / "safety_regions").rglob("*.py"):
        if "methods" in path.relative_to(ROOT).parts or path == CONTROL_NAMES:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in names:
                found.append(f"{path.relative_to(ROOT)}: {node.value}")
            module = getattr(node, "module", None) or ""
            if isinstance(node, ast.ImportFrom) and module.startswith("safety_regions.methods."):
                found.append(f"{path.relative_to(ROOT)}: {module}")
    for path in [*(ROOT / "workflow").rglob("*.smk"), *(ROOT / "workflow" / "scripts").glob("*.py")]:
        words = set(re.findall(r"[a-z_]+", path.read_text()))
        found += [f"{path.relative_to(ROOT)}: {name}" for name in names & words]
    assert not found


def test_a_folder_s_parts_are_its_files():
    assert method_module("snip") == method_module("snip", "selection") == "safety_regions.methods.snip"
    assert method_module("safelayer") == "safety_regions.methods.safelayer.method"
    assert method_module("safelayer", "sweep") == "safety_regions.methods.safelayer.sweep"
    assert method_module("safeneuron", "sweep") == "safety_regions.methods.safeneuron.method"
    assert Path(ROOT / (method_module("nlsr").replace(".", "/") + ".py")).is_file()
