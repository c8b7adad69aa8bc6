"""Stored code versions are those that would be computed, and are computed again after any edit."""

import json

import pytest

from safety_regions.study import code_version as computing
from safety_regions.study import known_versions as known


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of one module and a script, in a working directory of its own."""
    root = tmp_path / "safety_regions"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "a.py").write_text("def used():\n    return 1\n")
    (tmp_path / "script.py").write_text("from safety_regions.a import used\n\nused()\n")
    monkeypatch.chdir(tmp_path)
    for module in (computing, known):
        monkeypatch.setattr(module, "ROOT", root)
    return root


def started():
    """The version that a new process finds."""
    for function in (known.package_hash, known._versions, computing.code_version):
        function.cache_clear()
    for name in ("_path", "_tree", "_definitions", "_imports", "_import_lines", "_text"):
        getattr(computing, name).cache_clear()
    found = known.known_version("script.py")
    known._store()
    return found


@pytest.fixture
def computed(monkeypatch):
    """The entries whose version was computed."""
    calls, original = [], computing.code_version

    def counted(*entries):
        calls.append(entries)
        return original(*entries)

    monkeypatch.setattr(known, "code_version", counted)
    return calls


def test_a_version_is_computed_once(package, computed):
    first = started()
    assert started() == first == computing.code_version("script.py")
    assert computed == [("script.py",)]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("safety_regions/a.py", "def used():\n    return 2\n"),
        ("script.py", "from safety_regions.a import used\n\nused() + 1\n"),
    ],
)
def test_an_edit_has_it_computed_again(package, computed, file, text):
    first = started()
    (package.parent / file).write_text(text)
    assert started() != first
    assert len(computed) == 2
    assert computing.code_version("script.py") == started()


def test_a_module_loaded_by_name_counts(package, computed):
    started()
    assert known.known_version("script.py", "safety_regions.a") != known.known_version("script.py")


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"package": 1, "versions": 2}', "\x00"])
def test_a_damaged_store_is_not_used(package, computed, damage):
    first = started()
    known.STORE.write_text(damage)
    assert started() == first
    assert len(computed) == 2


def test_the_store_holds_one_state_of_the_package(package, computed):
    started()
    (package / "a.py").write_text("def used():\n    return 3\n")
    started()
    assert len(json.loads(known.STORE.read_text())["versions"]) == 1


def test_a_folder_that_cannot_be_written_is_no_error(package, computed):
    known.STORE.parent.write_text("a file in the place of the folder")
    assert started() == computing.code_version("script.py")


def test_a_copy_of_the_script_has_the_same_version(package, computed, tmp_path):
    """Snakemake copies scripts to a folder that has another name in every run."""
    first = started()
    (tmp_path / "copies").mkdir()
    (tmp_path / "script.py").rename(tmp_path / "copies" / "script.py")
    assert known.known_version("copies/script.py") == first
    assert len(computed) == 1
