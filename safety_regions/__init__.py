"""Safety regions of language models: see ``README.md`` for the workflow, ``docs/python.md`` for the functions here."""

from importlib import import_module

__version__ = "0.1.0"

# Public name -> the module it comes from, imported at first use: importing the package alone loads nothing heavy.
_HOMES = {
    **dict.fromkeys(("Region", "load_region", "iou", "expand"), "safety_regions.api.regions"),
    **dict.fromkeys(("weight_shapes", "weight_masks", "zeroed"), "safety_regions.api.models"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
