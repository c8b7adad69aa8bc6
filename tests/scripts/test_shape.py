"""Every script has one typed function with the script's name, and a few lines that call it with Snakemake's values."""

import ast
import inspect
import subprocess
import sys

import pytest

from tests.scripts.loading import FOLDER, SCRIPTS, load_module, load_script

LONGEST = 50
HEAVY = ("torch", "transformers", "pyarrow", "pandas", "numpy", "matplotlib")


def main_of(name: str) -> ast.If:
    """Return the block of a script that runs under Snakemake only."""
    blocks = [
        node for node in ast.parse((FOLDER / f"{name}.py").read_text()).body if isinstance(node, ast.If)
    ]
    assert [ast.unparse(block.test) for block in blocks] == ["__name__ == '__main__'"]
    return blocks[0]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_a_typed_function_of_its_name(name):
    module = load_module(name)
    function = getattr(module, name)
    defined = [
        f for _, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__
    ]
    assert defined == [function] and function.__doc__ and module.__doc__
    hints = inspect.get_annotations(function)
    assert hints.keys() == {*inspect.signature(function).parameters, "return"} and hints["return"] is None
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_function_knows_nothing_of_snakemake(name):
    statements = ast.parse((FOLDER / f"{name}.py").read_text()).body
    users = [node for node in statements if "snakemake." in ast.unparse(node)]
    assert [type(node) for node in users] == [ast.If]


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_called_with_arguments_that_it_takes(name):
    nodes = [node for node in ast.walk(main_of(name)) if isinstance(node, ast.Call)]
    (call,) = [node for node in nodes if ast.unparse(node.func) == name]
    assert all(keyword.arg for keyword in call.keywords)
    inspect.signature(load_script(name)).bind(*call.args, **{k.arg: k.value for k in call.keywords})


def test_importing_a_script_is_light():
    code = (
        "import sys\nfrom tests.scripts.loading import SCRIPTS, load_module\n"
        f"for name in SCRIPTS:\n    load_module(name)\nprint(sorted({set(HEAVY)!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
