"""Safety regions of language models. ``README.md`` describes the workflow, ``docs/python.md`` the functions here."""

from importlib import import_module

__version__ = "0.1.0"

# Public name -> its module, imported on first use so that importing the package loads nothing heavy.
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
