"""The finished arms of a job, kept in a file beside the output, so that an interrupted job goes on where it was."""

import json
from collections.abc import Sequence
from pathlib import Path


class Journal:
    """The finished arms of a job, one line of JSON each.

    Args:
        path: the file; it is made with the first arm.
        plan: identifies the job; a journal of another plan is begun anew.
    """

    def __init__(self, path: Path, plan: str) -> None:
        self.path, self.plan = path, plan

    def read(self) -> dict[tuple, dict]:
        """Arm -> its result, as JSON gives it back. A last line that was cut off is left out."""
        if not self.path.is_file():
            return {}
        lines = self.path.read_text(encoding="utf-8").split("\n")[
            :-1
        ]  # after the last newline a line was cut off
        if not lines or lines[0] != self.plan:
            self.remove()
            return {}
        self.path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        read = [json.loads(line) for line in lines[1:]]
        return {tuple(row["arm"]): row["result"] for row in read}

    def add(self, arm: Sequence, result: dict) -> None:
        """Write a finished arm."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.is_file()
        with self.path.open("a", encoding="utf-8") as file:
            file.write((f"{self.plan}\n" if new else "") + json.dumps({"arm": arm, "result": result}) + "\n")

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
