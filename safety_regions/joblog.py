"""What a job says: everything to its log file, and one clear message to the user when the input is at fault."""

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
    """Send the block's output to the log at ``path``; end the job with exit status 1 on a `StudyError`.

    What earlier attempts wrote stays, above a line with the time at which this one began.

    A `StudyError` is printed as one message, to the log and to the terminal; any other error also gets its
    traceback in the log, without the values of variables, so that no prompt is printed.
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
