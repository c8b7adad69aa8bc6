"""Settings of all tests: no deadline on a busy machine, the same examples on every run of CI, one thread."""

import os

from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=50, derandomize="CI" in os.environ)
settings.load_profile("default")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Before torch: it reads this once. Two threads gain nothing on tiny models, and on a busy machine lose much.
os.environ.setdefault("OMP_NUM_THREADS", "1")
