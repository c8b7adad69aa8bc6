"""Log the output of a job, say how far it is, and show the user one clear message when the input is at fault."""

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import TextIO

from safety_regions.errors import StudyError

AGAIN = "--- again:"
LOG_SECONDS = 20.0
"""Time between two lines about progress in a log."""
TERMINAL_SECONDS = 60.0
"""Time between two lines about progress in the terminal, where several jobs share the space."""

_shown: tuple[str, TextIO] | None = None  # what the terminal calls the job of this process, and the terminal


@contextmanager
def logged(path: str | Path) -> Iterator[None]:
    """Redirect the block's output to the log at ``path``; on a `StudyError`, exit with status 1.

    The output of earlier attempts is kept; a line with the start time of this attempt follows it.

    A `StudyError` is printed as one message, to the log and to the terminal. Any other error is raised, with its
    traceback in the log. The traceback shows no values of variables, so no prompt is printed.
    """
    global _shown
    terminal = sys.stderr
    _shown = "/".join(Path(path).with_suffix("").parts[1:]), terminal
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        if log.tell():
            print(f"{AGAIN} {datetime.now().astimezone().isoformat(timespec='seconds')} ---")
        try:
            yield
        except StudyError as error:
            for stream in (log, terminal):
                print(f"error: {error}", file=stream)
            raise SystemExit(1) from None
        except Exception:
            traceback.print_exc(file=log)
            raise
        finally:
            _shown = None


class Progress:
    """Says how far a long task is and how long it will take: in the job's log and, less often, in the terminal.

    A task that ends within `LOG_SECONDS` says nothing.

    Args:
        what: the task, for example "answering".
        total: number of its steps; None if nobody knows how many there will be, as in a search.
        unit: what a step is, in the plural.
        done: steps that were done before, in an interrupted job.
    """

    def __init__(self, what: str, total: int | None, unit: str, done: int = 0) -> None:
        self._what, self._total, self._unit, self._first, self._done = what, total, unit, done, done
        self._start = self._logged = self._told = time.monotonic()

    def step(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more steps as done; ``note`` says more about them."""
        self._done += n
        now = time.monotonic()
        if now - self._logged < LOG_SECONDS or self._done <= self._first:
            return
        self._logged = now
        said = f"{self._what}: {self._count(now - self._start)}"
        print(f"{said}; {note}" if note else said, flush=True)
        if _shown and now - self._told >= TERMINAL_SECONDS:
            self._told = now
            name, terminal = _shown
            print(f"{datetime.now():%H:%M:%S}  {name}: {said}", file=terminal, flush=True)

    def _count(self, seconds: float) -> str:
        if self._total is None:
            return f"{self._done} {self._unit} in {_duration(seconds)}"
        left = seconds / (self._done - self._first) * (self._total - self._done)
        return f"{self._done} of {self._total} {self._unit}, about {_duration(left)} left"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
