"""The code version changes with the code that a script reaches, and with nothing else."""

import pytest

from safety_regions.study import code_version as provenance

CACHED = [
    getattr(provenance, name)
    for name in ("code_version", "_path", "_tree", "_definitions", "_imports", "_text")
]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a package of three modules and a script; yield a function that returns the script's version after edits."""
    root = tmp_path / "safety_regions"
    (root / "templates").mkdir(parents=True)
    files = {
        "safety_regions/__init__.py": '"""A package."""\n',
        "safety_regions/a.py": (
            '"""A."""\nfrom safety_regions.b import helper\nfrom safety_regions import c\n\n\n'
            "LIMIT = 3\n\n\ndef used():\n    return helper() + LIMIT + c.other()\n\n\n"
            "def unused():\n    return c.thing()\n"
        ),
        "safety_regions/b.py": "def helper():\n    return deeper()\n\n\ndef deeper():\n    return 1\n\n\nOTHER = 5\n",
        "safety_regions/c.py": (
            "from safety_regions.errors import explain\n\n\ndef thing():\n    return 2\n\n\n"
            "def other():\n    if LEAST > 1:\n        print('too many')\n        raise ValueError('too many')\n"
            "    return LEAST + page('first.html.j2')\n\n\nLEAST = 1\n"
        ),
        "safety_regions/templates/first.html.j2": '{# About it. #}{% extends "frame.html.j2" %}{{ one }}\n',
        "safety_regions/templates/frame.html.j2": '<p>{{ text }}</p>{% include "look.css.j2" %}\n',
        "safety_regions/templates/look.css.j2": "p { color: red }\n",
        "safety_regions/templates/second.html.j2": "{{ two }}\n",
        "script.py": (
            "def run():\n    from safety_regions.a import used\n\n    return used()\n\n\n"
            "if __name__ == '__main__':\n    print(run())\n    run()\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(provenance, "ROOT", root)

    def version(*edit, moved=None):
        """Return the script's version after the edits (file, old, new) in their order; ``moved``: old file -> new."""
        for name, old, new in edit:
            assert old in (tmp_path / name).read_text()
            (tmp_path / name).write_text((tmp_path / name).read_text().replace(old, new))
        for old, new in (moved or {}).items():
            (tmp_path / new).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / old).rename(tmp_path / new)
        for cached in CACHED:
            cached.cache_clear()
        found = provenance.code_version(tmp_path / "script.py")
        for old, new in (moved or {}).items():
            (tmp_path / new).rename(tmp_path / old)
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        return found

    yield version
    for cached in CACHED:
        cached.cache_clear()


REACHED = [
    ("script.py", "return used()", "return used() + 1"),
    ("script.py", "\n    run()\n", "\n    run(1)\n"),
    ("safety_regions/a.py", "helper() + LIMIT", "helper() - LIMIT"),
    ("safety_regions/a.py", "LIMIT = 3", "LIMIT = 4"),
    ("safety_regions/b.py", "return deeper()", "return -deeper()"),
    ("safety_regions/b.py", "return 1", "return 2"),
    ("safety_regions/c.py", "LEAST > 1", "LEAST > 2"),
    ("safety_regions/c.py", "LEAST = 1", "LEAST = 0"),
    ("safety_regions/templates/first.html.j2", "{{ one }}", "{{ one }}!"),
    ("safety_regions/templates/frame.html.j2", "<p>", "<p> "),
    ("safety_regions/templates/look.css.j2", "red", "blue"),
]
OTHER = [
    ("script.py", "print(run())", "print('done')"),
    ("script.py", "def run():\n", 'def run():\n    """What it does."""\n    # a comment\n'),
    ("safety_regions/a.py", '"""A."""', '"""Another docstring."""'),
    ("safety_regions/a.py", "return c.thing()", "return c.thing() + 1"),
    ("safety_regions/b.py", "OTHER = 5", "OTHER = 6"),
    ("safety_regions/b.py", "def helper():\n", "def helper():\n\n"),
    ("safety_regions/c.py", "return 2", "return 3"),
    ("safety_regions/c.py", "print('too many')", "print('found', LEAST)"),
    ("safety_regions/c.py", "ValueError('too many')", "ValueError(explain('c', 'too many'))"),
    ("safety_regions/templates/first.html.j2", "About it.", "About this."),
    ("safety_regions/templates/second.html.j2", "{{ two }}", "{{ two }}!"),
]
MOVES = {
    "a module renamed": (
        [("safety_regions/a.py", "safety_regions.b ", "safety_regions.z ")],
        {"safety_regions/b.py": "safety_regions/z.py"},
    ),
    "a module imported as a whole, moved into a folder": (
        [("safety_regions/a.py", "from safety_regions import c", "from safety_regions.room import c")],
        {
            "safety_regions/c.py": "safety_regions/room/c.py",
            "safety_regions/templates/first.html.j2": "safety_regions/room/templates/first.html.j2",
            "safety_regions/templates/frame.html.j2": "safety_regions/room/templates/frame.html.j2",
            "safety_regions/templates/look.css.j2": "safety_regions/room/templates/look.css.j2",
        },
    ),
    "a template renamed": (
        [("safety_regions/c.py", "first.html", "start.html")],
        {"safety_regions/templates/first.html.j2": "safety_regions/templates/start.html.j2"},
    ),
    "a function renamed": (
        [("safety_regions/a.py", "helper", "assistant"), ("safety_regions/b.py", "helper", "assistant")],
        {},
    ),
    "an import under another name": (
        [
            ("safety_regions/a.py", "import c\n", "import c as constants\n"),
            ("safety_regions/a.py", "c.other", "constants.other"),
            ("safety_regions/a.py", "c.thing", "constants.thing"),
        ],
        {},
    ),
    "a function moved to another module": (
        [
            ("safety_regions/b.py", "def deeper():\n    return 1\n", ""),
            ("safety_regions/b.py", "def helper", "from safety_regions.d import deeper\n\n\ndef helper"),
            ("safety_regions/c.py", "LEAST = 1\n", "LEAST = 1\n\n\ndef deeper():\n    return 1\n"),
            ("safety_regions/b.py", "safety_regions.d", "safety_regions.c"),
        ],
        {},
    ),
}


@pytest.mark.parametrize("edit", REACHED)
def test_reached_code_changes_the_version(package, edit):
    assert package(edit) != package()


@pytest.mark.parametrize("edit", OTHER)
def test_other_code_comments_and_docstrings_do_not(package, edit):
    assert package(edit) == package()


@pytest.mark.parametrize("move", MOVES)
def test_moving_and_renaming_code_keeps_the_version(package, move):
    edits, moved = MOVES[move]
    assert package(*edits, moved=moved) == package()


def test_what_moves_is_still_followed(package):
    edits, moved = MOVES["a module renamed"]
    assert package(*edits, ("safety_regions/b.py", "return 1", "return 2"), moved=moved) != package()


def test_methods_live_separate_lives():
    modules = [f"safety_regions.methods.{name}" for name in ("snip", "wanda")]
    versions = {provenance.code_version(m) for m in modules} | {provenance.code_version(*modules)}
    assert len(versions) == 3


def test_a_function_is_narrower_than_its_module():
    passes = "safety_regions.scoring.passes"
    whole = provenance.reached(passes)
    assert (passes, "watch_gradients") in whole
    scored = provenance.reached("safety_regions.methods.wanda")
    assert (passes, "watch_inputs") in scored and (passes, "watch_gradients") not in scored


def test_words_of_a_card_decide_no_number(tmp_path):
    text = 'CARD = {"title": "A", "options": {"b": {"default": 1, "description": "c"}}}\n'
    versions = []
    for i, (old, new) in enumerate([("", ""), ('"A"', '"B"'), ('"c"', '"d"'), ("1", "2")]):
        path = tmp_path / f"{i}.py"
        path.write_text(text.replace(old, new) if old else text)
        versions.append(provenance.code_version(path))
    assert versions[0] == versions[1] == versions[2] != versions[3]


def test_a_template_that_is_not_there_is_an_error(tmp_path):
    (tmp_path / "script.py").write_text('render("gone.html.j2")\n')
    with pytest.raises(FileNotFoundError, match=r"gone\.html\.j2"):
        provenance.code_version(tmp_path / "script.py")


def test_an_unknown_module_is_an_error():
    with pytest.raises(FileNotFoundError):
        provenance.code_version("safety_regions.methods.wanad")
