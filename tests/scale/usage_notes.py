"""As the grid's sitecustomize.py, this file makes every process write its script, memory and time when it ends."""

import atexit
import os
import sys
from pathlib import Path


def note(file: str) -> None:
    """Append the script, the peak of the resident memory (kB) and the CPU seconds of this process."""
    # ru_maxrss would be wrong: a job starts as a copy of its parent and inherits the parent's value.
    peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    times = os.times()
    with open(file, "a", encoding="utf-8") as notes:
        notes.write(f"{Path(sys.argv[0]).name}\t{peak}\t{times.user + times.system:.2f}\n")


if "USAGE_NOTES" in os.environ:
    atexit.register(note, os.environ["USAGE_NOTES"])
