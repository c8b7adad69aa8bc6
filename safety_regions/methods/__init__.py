"""The methods: one file or folder for each.

A method's module documents its formula and source in the docstring, and defines these names:

``CARD``
    a literal dict, checked against ``study/schemas/method.schema.yaml``: title, granularity, default selections,
    options, presets, and keys that only some methods have. It is read from the syntax tree, so listing the methods
    imports none of them.
``gather(backbone, samples, options)``
    run the samples through the backbone and return the evidence (attribution statistics);
    `safety_regions.scoring.passes` runs the passes and repeats one that runs out of memory.
``scores(backbone, evidence, options)``
    yield (address, scores) pairs.
``details``, ``findings``, ``shuffle``, ``merge``, ``select``, ``sweep``
    optional; for types and meaning see `safety_regions.scoring.method`.

A method in a folder defines these in ``method.py``, except ``select`` (``selection.py``) and ``sweep`` (``sweep.py``).
"""

import importlib
from typing import TYPE_CHECKING

from safety_regions.errors import StudyError, explain
from safety_regions.study.method_shelf import method_module
from safety_regions.units.granularity import GRANULARITIES

if TYPE_CHECKING:
    from safety_regions.scoring.method import MeasureSweep, Method, Select

REQUIRED, OPTIONAL = ("CARD", "gather", "scores"), ("details", "findings", "shuffle", "merge")


def load_method(name: str) -> "Method":
    """Import the module of the method ``name``.

    Raises:
        StudyError: the module lacks `gather` or `scores`.
    """
    from safety_regions.scoring.method import Method

    module = importlib.import_module(method_module(name))
    _require(name, REQUIRED, vars(module))
    functions = {key: getattr(module, key) for key in (*REQUIRED[1:], *OPTIONAL) if hasattr(module, key)}
    return Method(name, GRANULARITIES[module.CARD["granularity"]], **functions)


def load_select(name: str) -> "Select":
    """The function that makes a method's own selections."""
    return _function(name, "selection", "select")


def load_sweep(name: str) -> "MeasureSweep":
    """The function that measures a method's sweep."""
    return _function(name, "sweep", "sweep")


def _function(name: str, part: str, function: str):
    module = importlib.import_module(method_module(name, part))
    _require(name, (function,), vars(module))
    return getattr(module, function)


def _require(name: str, wanted: tuple[str, ...], found: dict) -> None:
    missing = [key for key in wanted if key not in found]
    if missing:
        raise StudyError(
            explain(f"method '{name}'", f"no {', '.join(missing)}", "the functions that its CARD requires")
        )
