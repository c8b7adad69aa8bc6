"""Log the output of a job, and show the user one clear message when the input is at fault."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime
from pathlib import Path

from safety_regions.errors import StudyError

AGAIN = "--- again:"


@contextmanager
def logged(path: str | Path) -> Iterator[None]:
    """Redirect the block's output to the log at ``path``; on a `StudyError`, exit with status 1.

    The output of earlier attempts is kept; a line with the start time of this attempt follows it.

    A `StudyError` is printed as one message, to the log and to the terminal. Any other error is raised, with its
    traceback in the log. The traceback shows no values of variables, so no prompt is printed.
    """
    terminal = sys.stderr
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
