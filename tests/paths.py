"""Define paths of the project."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
# Literal definitions of the methods, and in `llama/` the results of released code.
ORACLES = ROOT / "tests" / "oracles"
