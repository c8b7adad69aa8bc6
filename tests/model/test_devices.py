"""A GPU must serve one job at a time, be free when the job ends or dies, and be hidden from jobs that need none."""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from safety_regions.model import devices
from safety_regions.model.devices import JOBS_PER_GPU, VISIBLE, assigned_gpus, visible_gpus
from tests.paths import ROOT

HOLDER = """
import sys, time
from safety_regions.model.devices import assigned_gpus
with assigned_gpus(int(sys.argv[1])) as gpus:
    print(",".join(gpus), flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Provide three GPUs, and a lock folder for this test alone."""
    for key in (*devices.ALLOCATIONS, JOBS_PER_GPU):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv(VISIBLE, "2, 5,7")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(devices.tempfile, "tempdir", None)
    monkeypatch.setattr(devices, "PATIENCE", 0.01)


def beside(wanted: int):
    """Assign GPUs as another process would, which does not see the GPUs assigned to this one."""
    os.environ[VISIBLE] = "2,5,7"
    return assigned_gpus(wanted)


def hold(wanted: int) -> tuple[subprocess.Popen, str]:
    """Start a process that holds GPUs; return it and the GPUs' names."""
    command = [sys.executable, "-c", HOLDER, str(wanted)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()  # the line that `assigned_gpus` prints
    return process, process.stdout.readline().strip()


def test_jobs_see_what_they_were_lent_and_nobody_else_has():
    with assigned_gpus(1) as one, beside(2) as two:
        assert sorted((*one, *two)) == ["2", "5", "7"]
        assert os.environ[VISIBLE] == ",".join(two)
    assert os.environ[VISIBLE] == "2, 5,7"


def test_who_asks_for_none_sees_none_and_who_asks_for_too_many_gets_all():
    with assigned_gpus(0) as none:
        assert none == () and os.environ[VISIBLE] == "" and visible_gpus() == ()
    with assigned_gpus(9) as every:
        assert every == ("2", "5", "7")


def test_a_machine_without_gpus_is_left_alone(monkeypatch):
    monkeypatch.setattr(devices, "visible_gpus", tuple)
    with assigned_gpus(1) as none:
        assert none == () and os.environ[VISIBLE] == "2, 5,7"


def test_a_job_waits_for_the_number_it_wants():
    order = []

    def wait():
        with beside(2):
            order.append("assigned")

    with assigned_gpus(1), ExitStack() as other:
        other.enter_context(beside(1))
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.1)
        order.append("given back")
        other.close()
        waiting.join(10)
    assert order == ["given back", "assigned"]


def test_a_job_that_is_killed_gives_back():
    process, taken = hold(2)
    with assigned_gpus(1) as left:
        assert not set(left) & set(taken.split(",")) and len(taken.split(",")) == 2
    process.kill()
    process.wait()
    with assigned_gpus(3) as every:
        assert len(every) == 3


def test_sharing_is_there_for_who_wants_it(monkeypatch):
    monkeypatch.setenv(JOBS_PER_GPU, "2")
    with ExitStack() as jobs:
        taken = [jobs.enter_context(beside(1)) for _ in range(6)]
        assert sorted(gpu for one in taken for gpu in one) == ["2", "2", "5", "5", "7", "7"]
        assert {gpu for one in taken[:3] for gpu in one} == {"2", "5", "7"}, (
            "GPUs without a job must be assigned first"
        )


def test_allocations_of_a_scheduler_do_not_meet(monkeypatch):
    """Device 0 of one allocation and device 0 of another must count as two devices."""
    monkeypatch.setenv(VISIBLE, "0")
    monkeypatch.setenv("SLURM_JOB_ID", "11")
    with assigned_gpus(1) as first:
        monkeypatch.setenv("SLURM_JOB_ID", "12")
        with assigned_gpus(1) as second:
            assert first == second == ("0",)
