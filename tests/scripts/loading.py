"""The scripts of the workflow, and how a test gets hold of the function of one."""

import importlib.util
from collections.abc import Callable
from types import ModuleType

from tests.paths import ROOT

FOLDER = ROOT / "workflow" / "scripts"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))


def load_module(name: str) -> ModuleType:
    """A script as a module: what stands under ``__main__`` does not run."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_script(name: str) -> Callable[..., None]:
    """The function of a script, which has its name."""
    return getattr(load_module(name), name)
