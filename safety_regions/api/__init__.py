"""The public functions for Python users, gathered in `safety_regions` itself; ``docs/python.md`` shows them."""
