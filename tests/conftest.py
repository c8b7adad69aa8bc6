"""Settings of all tests: no deadline on a busy machine, the same examples on every run of CI, one thread."""

import os

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=50, derandomize="CI" in os.environ)
settings.load_profile("default")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Before torch: it reads this once. Two threads gain nothing on tiny models, and on a busy machine lose much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Stands for all families in `make test-fast`.
FAST_FAMILY = "llama"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that runs over the families of backbones, one is quick to run; the others are marked slow."""
    for item in items:
        family = item.callspec.params.get("family") if hasattr(item, "callspec") else None
        if family not in (None, FAST_FAMILY):
            item.add_marker(pytest.mark.slow)
