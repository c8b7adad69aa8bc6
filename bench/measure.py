"""Measure wall time, CPU time and memory, check results, and format the table of figures."""

import multiprocessing
import os
import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20


class Figure(NamedTuple):
    """One row of the table.

    Attributes:
        what: what was measured, and at which size.
        value: the measurement, in ``unit``; seconds are wall clock unless ``what`` says CPU. None if it was skipped.
        floor: a lower bound in the same unit, and ``floor_is`` says what it measures; None if there is none.
        at_least, at_most: the target, or None.
    """

    what: str
    value: float | None
    unit: str = ""
    floor: float | None = None
    floor_is: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        """Return the target and whether it was met; empty if there is none."""
        if self.at_least is not None:
            return f">= {self.at_least:g}: {'met' if self.value >= self.at_least else 'MISSED'}"
        if self.at_most is not None:
            return f"<= {self.at_most:g}: {'met' if self.value <= self.at_most else 'MISSED'}"
        return ""


class Cost(NamedTuple):
    """Wall seconds, CPU seconds (of all threads) and bytes of memory that a call took.

    ``whole`` is the peak memory of the process; ``peak`` is this peak minus what was resident before the call.
    """

    wall: float
    cpu: float
    peak: int
    whole: int


def require(holds: bool, what: str) -> None:
    """Raise ValueError if a result is wrong, because its figures would mean nothing."""
    if not holds:
        raise ValueError(f"bench: wrong results: {what}")


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """Return the least wall seconds of a few calls."""
    return min(alternate([call], repeats))


def alternate(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Return the least wall seconds of each call; calls take turns, so that a slow minute affects all of them."""
    best = [float("inf")] * len(calls)
    for _ in range(repeats):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def alone(prepare: Callable, run: Callable, *arguments: object) -> Cost:
    """Measure ``run(prepare(*arguments))`` in a separate process, without the cost of ``prepare``.

    Peak memory is the high-water mark of the resident set (Linux: VmHWM, reset before the call) minus what was
    resident before the call. Of a memory-mapped file, the pages that were read count.
    """
    context = multiprocessing.get_context("spawn")
    inbox, outbox = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(outbox, prepare, run, arguments))
    process.start()
    outbox.close()
    try:
        return inbox.recv()
    except EOFError:
        raise ValueError(f"bench: {run.__name__} failed; its error is printed above") from None
    finally:
        process.join()


def _measured(outbox, prepare: Callable, run: Callable, arguments: tuple) -> None:
    prepared = prepare(*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS
    before, cpu, start = _status("VmRSS"), time.process_time(), time.perf_counter()
    run(prepared)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    whole = _status("VmHWM")
    outbox.send(Cost(wall, cpu, whole - before, whole))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


class Ran(NamedTuple):
    """Wall and CPU seconds of a finished command (with its child processes), and its output, errors first."""

    wall: float
    cpu: float
    said: str


def command(line: Sequence[str | Path], folder: Path, **environment: str) -> Ran:
    """Run a command in a folder.

    Raises:
        ValueError: the command failed; the message quotes its status and output.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [str(part) for part in line], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    said = done.stderr + done.stdout
    if done.returncode:
        name = " ".join(map(str, line[:4]))
        raise ValueError(f"bench: {name} ended with status {done.returncode}:\n{said[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ran(wall, cpu, said)


HEAD = "| what | measured | lower bound | target |\n| --- | --- | --- | --- |"


def row(figure: Figure) -> str:
    """Return a figure as a row of a Markdown table under `HEAD`."""
    floor = _quantity(figure.floor, figure.unit) + (f" ({figure.floor_is})" if figure.floor_is else "")
    cells = (figure.what, _quantity(figure.value, figure.unit), floor, figure.target)
    return f"| {' | '.join(cells)} |"


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:,.0f} {unit}".strip() if abs(value) >= 1000 else f"{value:.3g} {unit}".strip()
