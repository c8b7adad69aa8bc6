"""The fingerprint changes with the code that is reached, and with nothing else."""

import pytest

from safety_regions import provenance

CACHED = [
    getattr(provenance, name) for name in ("code_version", "_path", "_tree", "_definitions", "_text", "_uses")
]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules and a script, and a function that hashes the script after an edit."""
    root = tmp_path / "safety_regions"
    root.mkdir()
    files = {
        "safety_regions/__init__.py": '"""A package."""\n',
        "safety_regions/a.py": (
            '"""A."""\nfrom safety_regions.b import helper\nfrom safety_regions import c\n\n\n'
            "LIMIT = 3\n\n\ndef used():\n    return helper() + LIMIT\n\n\ndef unused():\n    return c.thing()\n"
        ),
        "safety_regions/b.py": "def helper():\n    return deeper()\n\n\ndef deeper():\n    return 1\n\n\nOTHER = 5\n",
        "safety_regions/c.py": "def thing():\n    return 2\n",
        "script.py": "def run():\n    from safety_regions.a import used\n\n    return used()\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(provenance, "ROOT", root)

    def version(*edit):
        if edit:
            name, old, new = edit
            assert old in files[name]
            (tmp_path / name).write_text(files[name].replace(old, new))
        for cached in CACHED:
            cached.cache_clear()
        found = provenance.code_version(tmp_path / "script.py")
        if edit:
            (tmp_path / name).write_text(files[name])
        return found

    yield version
    for cached in CACHED:
        cached.cache_clear()


REACHED = [
    ("script.py", "return used()", "return used() + 1"),
    ("safety_regions/a.py", "helper() + LIMIT", "helper() - LIMIT"),
    ("safety_regions/a.py", "LIMIT = 3", "LIMIT = 4"),
    ("safety_regions/b.py", "return deeper()", "return -deeper()"),
    ("safety_regions/b.py", "return 1", "return 2"),
]
OTHER = [
    ("script.py", "def run():\n", 'def run():\n    """What it does."""\n    # a comment\n'),
    ("safety_regions/a.py", '"""A."""', '"""Another docstring."""'),
    ("safety_regions/a.py", "return c.thing()", "return c.thing() + 1"),
    ("safety_regions/b.py", "OTHER = 5", "OTHER = 6"),
    ("safety_regions/b.py", "def helper():\n", "def helper():\n\n"),
    ("safety_regions/c.py", "return 2", "return 3"),
]


@pytest.mark.parametrize("edit", REACHED)
def test_reached_code_changes_the_version(package, edit):
    assert package(*edit) != package()


@pytest.mark.parametrize("edit", OTHER)
def test_other_code_comments_and_docstrings_do_not(package, edit):
    assert package(*edit) == package()


def test_methods_live_separate_lives():
    modules = [f"safety_regions.methods.{name}" for name in ("snip", "wanda")]
    versions = {provenance.code_version(m) for m in modules} | {provenance.code_version(*modules)}
    assert len(versions) == 3


def test_a_function_is_narrower_than_its_module():
    whole: set = set()
    one: set = set()
    provenance._reach(("safety_regions.scoring.passes", "*"), whole)
    provenance._reach(("safety_regions.scoring.passes", "sample_losses"), one)
    assert ("safety_regions.scoring.passes", "watch_gradients") not in one
    assert {module for module, _ in one} < {module for module, _ in whole}


def test_an_unknown_module_is_an_error():
    with pytest.raises(FileNotFoundError):
        provenance.code_version("safety_regions.methods.wanad")
