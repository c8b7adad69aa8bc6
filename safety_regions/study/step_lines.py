"""What a run prints: one line per finished step, and errors. All of Snakemake's own output stays in its log file."""

import logging
from datetime import datetime

STREAM = "DefaultStreamHandler"
"""The name that Snakemake gives its handler for the terminal."""


def print_step_lines() -> None:
    """Print a line per finished step instead of Snakemake's several lines when a step starts and when it ends.

    Nothing changes in a dry run, with ``--verbose`` or ``--quiet``, or with another logger (``--logger``).
    """
    from snakemake.logging import logger

    for handler in logger.handlers:
        if handler.name == STREAM and not any(_asked_otherwise(given) for given in handler.filters):
            lines = StepLines(handler.formatter)
            handler.addFilter(lines)
            handler.setFormatter(lines)


def _asked_otherwise(given: logging.Filter) -> bool:
    return bool(given.dryrun or given.verbose or given.debug_dag or given.quiet)


class StepLines(logging.Formatter):
    """Turns Snakemake's records into lines; the text of a line is the ``message`` of the step's rule.

    Snakemake tells about a step three times: when it starts (with the message), when it ends (with its number), and
    how many steps are done (without a number).
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter
        self._messages: dict[int, str] = {}
        self._finished: list[int] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Note the message of a step that starts, and drop what is not said."""
        event = _event(record)
        if event == "job_info":
            self._messages[record.jobid] = record.rule_msg or record.rule_name
        return (
            event not in ("job_info", "job_started", "shellcmd") and record.msg != "Select jobs to execute..."
        )

    def format(self, record: logging.LogRecord) -> str:
        """The lines for the steps that have ended since the last ones; nothing (no line) when a step ends."""
        event = _event(record)
        if event == "job_finished":
            self._finished.append(record.job_id)
            return ""
        if event != "progress":
            return self._formatter.format(record)
        finished, self._finished = self._finished, []
        start = (
            f"{datetime.now():%H:%M:%S}  {record.done} of {record.total} ({record.done / record.total:.0%})  "
        )
        return "\n".join(start + self._messages.pop(number, f"step {number}") for number in finished)


def _event(record: logging.LogRecord) -> str | None:
    event = getattr(record, "event", None)
    return None if event is None else event.value
