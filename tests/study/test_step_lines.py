"""A run prints one line per finished step."""

import logging

from safety_regions.study.step_lines import StepLines


class Event:
    def __init__(self, value: str) -> None:
        self.value = value


def record(event: str | None = None, message: str = "", **more: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, **more})
    if event:
        made.event = Event(event)
    return made


def test_a_finished_step_is_one_line_with_the_message_of_its_rule():
    lines = StepLines(logging.Formatter())
    given = [
        record(None, "Select jobs to execute..."),
        record("job_info", jobid=7, rule_msg="Scoring tiny", rule_name="score"),
        record("job_info", jobid=8, rule_msg=None, rule_name="all"),
        record("job_started", "Execute 2 jobs..."),
        record("job_finished", "Finished jobid: 8", job_id=8),
        record("progress", done=1, total=4),
        record(None, "a warning"),
        record("job_finished", "Finished jobid: 7", job_id=7),
        record("progress", done=2, total=4),
        record("job_error", "score failed"),
    ]
    said = [lines.format(one) for one in given if lines.filter(one)]
    times, rest = zip(*((line[:8], line[8:]) for line in said if "of 4" in line), strict=True)
    assert rest == ("  1 of 4 (25%)  all", "  2 of 4 (50%)  Scoring tiny")
    assert all(time.count(":") == 2 for time in times)
    assert [line for line in said if line and "of 4" not in line] == ["a warning", "score failed"]
