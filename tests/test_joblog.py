"""The log of a job must hold the output of every attempt; the terminal shows only errors that a user can correct."""

import re

import pytest

from safety_regions.errors import StudyError
from safety_regions.joblog import AGAIN, Progress, logged


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr("safety_regions.joblog.time.monotonic", lambda: now[0])
    return now


def test_progress_is_said_with_what_is_left_in_the_log_and_less_often_in_the_terminal(
    tmp_path, capsys, clock
):
    path = tmp_path / "logs" / "score" / "tiny" / "a.log"
    with logged(path):
        progress = Progress("scoring", 100, "samples", done=20)
        for seconds, n in ((10, 5), (15, 5), (5, 10), (50, 40), (4, 20)):
            clock[0] += seconds
            progress.step(n, "loss 1.5")
    assert path.read_text().splitlines() == [
        "scoring: 30 of 100 samples, about 3 min left; loss 1.5",  # 25 s for 10 samples, 70 are left
        "scoring: 80 of 100 samples, about 27 s left; loss 1.5",  # 80 s for 60 samples
    ]
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  .*score/tiny/a: scoring: 80 of 100 samples, about 27 s left\n", said
    )


def test_progress_of_a_search_has_no_estimate_and_a_short_task_says_nothing(capsys, clock):
    search, short = Progress("sweep", None, "ranges"), Progress("answering", 3, "prompts")
    clock[0] += 19
    short.step(3)
    clock[0] += 7181
    search.step(2)
    assert capsys.readouterr().out == "sweep: 2 ranges in 2.0 h\n"


def test_what_a_job_prints_goes_to_its_log(tmp_path, capsys):
    with logged(tmp_path / "new" / "a.log"):
        print("working")
    assert (tmp_path / "new" / "a.log").read_text() == "working\n"
    assert capsys.readouterr() == ("", "")


def test_a_mistake_of_the_user_is_said_on_the_terminal_too(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended, logged(tmp_path / "a.log"):
        raise StudyError("config: found nothing")
    assert ended.value.code == 1
    assert (tmp_path / "a.log").read_text() == "error: config: found nothing\n"
    assert capsys.readouterr() == ("", "error: config: found nothing\n")


def test_a_failure_leaves_its_traceback_without_the_values_of_variables(tmp_path):
    secret = "a prompt"
    with pytest.raises(ZeroDivisionError), logged(tmp_path / "a.log"):
        print(len(secret) / 0)
    said = (tmp_path / "a.log").read_text()
    assert "Traceback" in said and "ZeroDivisionError" in said and secret not in said


def test_every_attempt_stays_in_the_log(tmp_path):
    path = tmp_path / "a.log"
    with pytest.raises(ZeroDivisionError), logged(path):
        print("first attempt")
        raise ZeroDivisionError
    for attempt in ("second", "third"):
        with logged(path):
            print(f"{attempt} attempt")
    first, second, third = re.split(rf"(?m)^{re.escape(AGAIN)} .*\n", path.read_text())
    assert first.startswith("first attempt\n") and "ZeroDivisionError" in first
    assert (second, third) == ("second attempt\n", "third attempt\n")
    separators = [line for line in path.read_text().splitlines() if line.startswith(AGAIN)]
    assert all(
        re.fullmatch(rf"{AGAIN} \d{{4}}-\d\d-\d\dT[\d:]{{8}}[+-][\d:]{{5}} ---", s) for s in separators
    )
