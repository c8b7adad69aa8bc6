"""The shelf of methods: one file or folder for each.

A method's module holds its formula and source in the docstring and these names:

``CARD``
    a literal dict, checked against ``study/schemas/method.schema.yaml``: title, granularity, default selections,
    options, presets, and what is the method's own. It is read from the syntax tree: listing the shelf imports nothing.
``gather(backbone, samples, options)``
    passes over the samples; `safety_regions.scoring.passes` has them. It starts anew after running out of memory.
``scores(backbone, evidence, options)``
    (address, scores) pairs.
``details``, ``findings``, ``shuffle``, ``select``, ``sweep``
    optional; types and meaning stand in `safety_regions.scoring.method`.

A folder keeps these in ``method.py``, with ``select`` in ``selection.py`` and ``sweep`` in ``sweep.py``.
"""

import importlib
from typing import TYPE_CHECKING

from safety_regions.errors import StudyError, explain
from safety_regions.study.method_shelf import method_module
from safety_regions.units.granularity import GRANULARITIES

if TYPE_CHECKING:
    from safety_regions.scoring.method import MeasureSweep, Method, Select

REQUIRED, OPTIONAL = ("CARD", "gather", "scores"), ("details", "findings", "shuffle")


def load_method(name: str) -> "Method":
    """The method ``name`` of the shelf, its module imported.

    Raises:
        StudyError: the module lacks `gather` or `scores`.
    """
    from safety_regions.scoring.method import Method

    module = importlib.import_module(method_module(name))
    _require(name, REQUIRED, vars(module))
    functions = {key: getattr(module, key) for key in (*REQUIRED[1:], *OPTIONAL) if hasattr(module, key)}
    return Method(name, GRANULARITIES[module.CARD["granularity"]], **functions)


def load_select(name: str) -> "Select":
    """The function with which a method makes its own selections."""
    return _function(name, "selection", "select")


def load_sweep(name: str) -> "MeasureSweep":
    """The function with which a method measures its sweep."""
    return _function(name, "sweep", "sweep")


def _function(name: str, part: str, function: str):
    module = importlib.import_module(method_module(name, part))
    _require(name, (function,), vars(module))
    return getattr(module, function)


def _require(name: str, wanted: tuple[str, ...], found: dict) -> None:
    missing = [key for key in wanted if key not in found]
    if missing:
        raise StudyError(
            explain(f"method '{name}'", f"no {', '.join(missing)}", "the functions its CARD promises")
        )
