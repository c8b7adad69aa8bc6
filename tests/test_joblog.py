"""The log of a job must hold the output of every attempt; the terminal shows only errors that a user can correct."""

import re

import pytest

from safety_regions.errors import StudyError
from safety_regions.joblog import AGAIN, logged


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
