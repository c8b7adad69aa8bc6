"""Where the project lies."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
# What the original authors' code computes, and what they published.
ORACLES = ROOT / "tests" / "oracles"
