"""A job that runs in a fork must see, leave and report what a process of its own would."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from safety_regions.study import forked_jobs
from safety_regions.study.forked_jobs import SWITCH, fork_local_jobs
from tests.paths import ROOT

pytestmark = pytest.mark.slow

RUN = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from safety_regions.study import forked_jobs
forked_jobs.LIBRARIES = ("json",)
script = SimpleNamespace(bench_record=None, resources={"tmpdir": sys.argv[2]})
try:
    forked_jobs._fork(script, sys.argv[1])
except Exception as error:
    print(type(error).__name__, getattr(error, "returncode", error))
"""
FACTS = """
import json, os, sys, tempfile
print(json.dumps({
    "main": __name__, "argv": sys.argv, "folder": os.getcwd(), "first": sys.path[0], "temporary": tempfile.gettempdir(),
    "threads": os.environ["OMP_NUM_THREADS"], "mine": os.environ["MINE"], "preloaded": "json.decoder" in sys.modules,
}))
"""


def run(tmp_path: Path, script: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a script in a fork of a server that another Python starts, as Snakemake does."""
    path = tmp_path / "job.py"
    path.write_text(script)
    command = [sys.executable, "-c", RUN, str(path), str(tmp_path)]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)


def test_a_job_is_the_main_program_with_the_environment_of_a_job(tmp_path):
    done = run(tmp_path, FACTS, MINE="mine", OMP_NUM_THREADS="7")
    path = str(tmp_path / "job.py")
    assert json.loads(done.stdout) == {
        "main": "__main__", "argv": [path], "folder": str(tmp_path), "first": str(tmp_path), "temporary": str(tmp_path),
        "threads": "1", "mine": "mine", "preloaded": True,
    }, done.stderr  # fmt: skip


@pytest.mark.parametrize(
    "script, status",
    [("raise SystemExit(3)", 3), ("raise ValueError('why')", 1), ("import os; os.kill(os.getpid(), 9)", -9)],
)
def test_a_job_that_fails_fails_with_its_status(tmp_path, script, status):
    done = run(tmp_path, script)
    assert done.stdout.split() == ["CalledProcessError", str(status)]
    assert ("ValueError: why" in done.stderr) == (status == 1)


@pytest.mark.parametrize("killed", ["run", "server"])
def test_a_job_ends_with_the_run(tmp_path, killed):
    """Otherwise it could write its results while the next run writes them too."""
    path = tmp_path / "job.py"
    path.write_text(
        f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    command = [sys.executable, "-c", RUN, str(path), str(tmp_path)]
    run = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    job = _number(tmp_path / "pid")
    os.kill({"run": run.pid, "server": psutil.Process(job).ppid()}[killed], signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(job) and psutil.Process(job).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the job outlives the run"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "changed",
    [
        {"threads": 2},
        {"resources": {"gpu": 1}},
        {"conda_env": "here"},
        {"container_img": "image"},
        {"shadow_dir": "x"},
    ],
)
def test_a_job_that_needs_a_process_of_its_own_gets_one(changed):
    plain = {"conda_env": None, "container_img": None, "env_modules": None, "shadow_dir": None, "threads": 1}
    script = SimpleNamespace(**{**plain, "resources": {"gpu": 0}})
    assert forked_jobs._forkable(script)
    assert not forked_jobs._forkable(SimpleNamespace(**{**plain, "resources": {"gpu": 0}, **changed}))


def test_forks_can_be_switched_off_and_are_made_once(monkeypatch):
    from snakemake.script import PythonScript

    monkeypatch.setattr(PythonScript, "_execute_cmd", PythonScript._execute_cmd)
    start = PythonScript._execute_cmd
    monkeypatch.setenv(SWITCH, "0")
    fork_local_jobs()
    assert PythonScript._execute_cmd is start
    monkeypatch.delenv(SWITCH)
    fork_local_jobs()
    forked = PythonScript._execute_cmd
    fork_local_jobs()
    assert forked is not start and PythonScript._execute_cmd is forked


def _number(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.05)
    return int(path.read_text())
