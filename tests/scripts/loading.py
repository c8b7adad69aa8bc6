"""Tests load the scripts of the workflow, and the functions in them, from here."""

import importlib.util
from collections.abc import Callable
from types import ModuleType

from tests.paths import ROOT

FOLDER = ROOT / "workflow" / "scripts"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))


def load_module(name: str) -> ModuleType:
    """Return a script as a module; its code under ``__main__`` does not run."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_script(name: str) -> Callable[..., None]:
    """Return the function of a script; both have the same name."""
    return getattr(load_module(name), name)
