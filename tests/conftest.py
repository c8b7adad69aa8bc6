"""Configure all tests: no deadline on a busy machine, the same examples in every run of CI, one thread."""

import os

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=50, derandomize="CI" in os.environ)
# Of `make test-fast`, by the option --hypothesis-profile.
settings.register_profile("fast", settings.get_profile("default"), max_examples=10)
settings.load_profile("default")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Set before torch is imported, because torch reads it once. On tiny models two threads are no faster than one, and
# on a busy machine they are much slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The only family that `make test-fast` tests.
FAST_FAMILY = "llama"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests of other families than `FAST_FAMILY` as slow."""
    for item in items:
        family = item.callspec.params.get("family") if hasattr(item, "callspec") else None
        if family not in (None, FAST_FAMILY):
            item.add_marker(pytest.mark.slow)
