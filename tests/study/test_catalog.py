"""A card that extends another holds only the keys that differ, and is read as a complete card."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.study.catalog import CATALOG, EXTENDS, Shelf, check, merged, schema
from safety_regions.study.config import read_study

FILES = sorted((CATALOG / "backbones").glob("*.yaml"))
WRITTEN = {path.stem: yaml.safe_load(path.read_text()) for path in FILES}
EXTENDING = sorted(name for name, card in WRITTEN.items() if EXTENDS in card)

KEYS = st.sampled_from("abcd")
LEAVES = st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
INNER = st.recursive(
    st.dictionaries(KEYS, LEAVES, min_size=1, max_size=4),
    lambda inner: st.dictionaries(KEYS, LEAVES | inner, min_size=1, max_size=4),
    max_leaves=8,
)
CARDS = st.dictionaries(KEYS, LEAVES | INNER, max_size=4)


def leaves(card: object, path: tuple[str, ...] = ()):
    """Yield (path, value) for every value of a card that is not a mapping."""
    if not isinstance(card, dict):
        yield path, card
        return
    for key, value in card.items():
        yield from leaves(value, (*path, key))


@given(CARDS)
def test_nothing_on_top_changes_nothing(card):
    for whole in (merged(card, {}), merged({}, card), merged(card, card)):
        assert whole == card and list(whole) == list(card)


@given(CARDS, CARDS)
def test_all_that_a_card_says_holds_and_its_base_holds_elsewhere(base, own):
    whole = dict(leaves(merged(base, own)))
    said = dict(leaves(own))
    assert said.items() <= whole.items()
    for path, value in leaves(base):
        # A value of ``own`` above or below this path replaces it.
        touched = any(path[: len(other)] == other[: len(path)] for other in said)
        assert touched or whole[path] == value


@given(CARDS, CARDS, CARDS)
def test_the_base_may_extend_a_base(a, b, c):
    """Without nulls, merging is associative if a key holds a mapping in all cards or in none."""

    def shapes_agree(*cards):
        return all(
            len({isinstance(card[key], dict) for card in cards if key in card}) == 1
            and shapes_agree(*(card[key] for card in cards if isinstance(card.get(key), dict)))
            for key in {key for card in cards for key in card}
        )

    if shapes_agree(a, b, c):
        assert merged(merged(a, b), c) == merged(a, merged(b, c))


@given(CARDS, CARDS)
def test_the_base_keeps_its_order(base, own):
    whole = list(merged(base, own))
    assert [key for key in whole if key in base] == list(base)
    assert set(whole) == set(base) | set(own)


def test_a_new_key_stands_before_the_next_that_both_have():
    assert list(merged({"a": 1, "b": 1, "c": 1}, {"x": 2, "b": 2, "y": 2})) == ["a", "x", "b", "c", "y"]


def test_lists_are_replaced_and_null_takes_away():
    base = {"list": [1, 2], "kept": None, "inner": {"gone": 1, "stays": 2}}
    own = {"list": [3], "inner": {"gone": None}, "new": None}
    assert merged(base, own) == {"list": [3], "kept": None, "inner": {"stays": 2}, "new": None}
    assert base == {"list": [1, 2], "kept": None, "inner": {"gone": 1, "stays": 2}}


@pytest.mark.parametrize("name", EXTENDING)
def test_a_card_of_the_catalog_differs_from_its_base_where_it_says_so_and_nowhere_else(name):
    shelf, own = Shelf("backbones", {}), dict(WRITTEN[name])
    base, whole = shelf.read(own.pop(EXTENDS)), shelf.read(name)
    assert EXTENDS not in whole
    assert check(whole, schema(whole["kind"]), name) == []
    assert whole["title"] != base["title"]
    said = dict(leaves(own))
    expected = dict(leaves(base)) | said
    expected = {path: value for path, value in expected.items() if path not in said or value is not None}
    assert dict(leaves(whole)) == expected


def test_every_organism_but_the_first_of_a_kind_extends_one():
    first = {"organism-llama", "organism-smollm2"}
    assert {name for name, card in WRITTEN.items() if card.get("kind") == "organism"} == first
    assert first | set(EXTENDING) >= {name for name in WRITTEN if name.startswith("organism-")}


def test_an_inline_card_extends_one_of_the_catalog():
    small = {EXTENDS: "organism-llama", "title": "Small", "architecture": {"layers": 2}}
    config = {
        "backbones": ["small"],
        "datasets": {"identification": ["fraud"]},
        "methods": {"snip": {}},
        "cards": {"backbones": {"small": small}},
    }
    card, base = read_study(config).backbones["small"], read_study(config | {"backbones": ["organism-llama"]})
    expected = base.backbones["organism-llama"] | {"title": "Small"}
    assert card == expected | {"architecture": expected["architecture"] | {"layers": 2}}
    small["architecture"]["layerz"] = 3
    with pytest.raises(StudyError, match="cards: small: architecture: unknown key 'layerz'"):
        read_study(config)


@pytest.mark.parametrize(
    "cards, found",
    [
        (
            {"a": {EXTENDS: "a"}},
            "cards: a: extends: found a -> a; expected cards that do not extend each other in a circle",
        ),
        ({"a": {EXTENDS: "b"}, "b": {EXTENDS: "a"}}, "found a -> b -> a"),
        (
            {"a": {EXTENDS: "organism-lama"}},
            "cards: a: extends: unknown card 'organism-lama'. Did you mean 'organism-llama'",
        ),
        ({"a": {EXTENDS: ["b"]}, "b": {}}, 'found ["b"]; expected the name of a card'),
        ({"a": {EXTENDS: None}}, "found null; expected the name of a card"),
        ({"a": {EXTENDS: "b"}, "b": [1]}, "cards: b: found [1]; expected a YAML mapping"),
    ],
)
def test_what_cannot_be_extended_is_said(cards, found):
    with pytest.raises(StudyError) as raised:
        Shelf("backbones", cards).read("a")
    assert found in str(raised.value)


def test_a_cycle_is_one_problem_among_others():
    config = {
        "backbones": ["a"],
        "datasets": {"identification": ["frod"]},
        "methods": {"snip": {}},
        "cards": {"backbones": {"a": {EXTENDS: "a"}}},
    }
    with pytest.raises(StudyError, match="2 problems") as raised:
        read_study(config)
    assert "cards: a: extends" in str(raised.value) and "'frod'" in str(raised.value)


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """An empty catalog, whose folders the tests fill."""
    monkeypatch.setattr("safety_regions.study.catalog.CATALOG", tmp_path)
    monkeypatch.setattr("safety_regions.study.catalog.PACKAGE", tmp_path)
    for folder in ("backbones", "datasets"):
        (tmp_path / folder).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("file", "asked", "right"),
    [
        ("my_set.yaml", "my_set", "my-set"),
        ("my_set.yaml", "my-set", "my-set"),
        ("MySet.yaml", "MySet", "myset"),
        ("My Set.yaml", "my set", "my-set"),
        ("mine.yml", "mine", "mine"),
        ("mine.yml", "mine.yml", "mine"),
        ("mine.YAML", "mine", "mine"),
        ("a.b.yaml", "a.b", "a-b"),
    ],
)
def test_what_the_file_of_a_card_may_be_called(catalog, file, asked, right):
    (catalog / "datasets" / file).write_text("role: identification\n")
    config = {"backbones": ["x"], "datasets": {"identification": [asked]}, "methods": {"snip": {}}}
    with pytest.raises(StudyError) as raised:
        read_study(config)
    assert f"- config: datasets: {asked}: found the file" in str(raised.value)
    assert f"datasets/{file}; expected a file name of lower-case letters, digits and '-'" in str(raised.value)
    assert f"with the ending .yaml. Try: the file name {right}.yaml, and the name {right}" in str(
        raised.value
    )
    assert f"unknown dataset '{asked}'" not in str(raised.value)


def test_backbones_may_have_dots_and_underscores(catalog):
    for name in ("qwen2.5_x", "My-Model"):
        (catalog / "backbones" / f"{name}.yaml").write_text("kind: checkpoint\n")
    assert Shelf("backbones", {}).names == ["qwen2.5_x"]
    with pytest.raises(StudyError, match=r"extends: my-model: found the file .*My-Model\.yaml"):
        Shelf("backbones", {"b": {EXTENDS: "my-model"}}).read("b")


def test_a_second_file_with_the_ending_yml_is_not_ignored(catalog):
    for ending in ("yaml", "yml"):
        (catalog / "datasets" / f"mine.{ending}").write_text("role: utility\n")
    assert "mine.yml" in Shelf("datasets", {}).misnamed("mine")
    assert Shelf("datasets", {}).misnamed("other") == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "kind: organism\nseed: 1\nseed: 2\n",
            "a.yaml: seed: found this key in lines 2, 3; expected each key once",
        ),
        ("a: {b: [{c: 1, c: 1}]}\n", "a: b: 0: c: found this key in lines 1, 1"),
        ("a:\n\t- x\n", "broken YAML in line 2"),
        ("a: 2024-13-01\n", "broken YAML"),
        ("a: !!python/name:os.system\n", "broken YAML in line 1"),
        (b"a: caf\xe9\n", "bytes that are not UTF-8"),
    ],
)
def test_a_card_that_cannot_be_read_or_gives_a_key_twice(catalog, text, says):
    (catalog / "backbones" / "a.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError) as raised:
        Shelf("backbones", {}).read("a")
    assert says in str(raised.value)


def test_broken_yaml_says_the_line(tmp_path, monkeypatch):
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / "a.yaml").write_text("kind: organism\ntitle: [1\n")
    monkeypatch.setattr("safety_regions.study.catalog.CATALOG", tmp_path)
    monkeypatch.setattr("safety_regions.study.catalog.PACKAGE", tmp_path)
    with pytest.raises(StudyError, match=r"broken YAML in line \d; expected a YAML mapping"):
        Shelf("backbones", {"b": {EXTENDS: "a"}}).read("b")
