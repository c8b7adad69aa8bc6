"""Public Python functions, importable from `safety_regions`; documented in ``docs/python.md``."""
