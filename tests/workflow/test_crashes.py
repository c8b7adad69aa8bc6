"""After killed runs, killed jobs, a full disk or damaged files, the study still ends with the same bits."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MOMENTS = 12
GATHERED = "results/overlap/iou.parquet"
"""What the runs are asked for: all numbers, but no figures."""


def contents(project) -> dict[Path, bytes]:
    found = project.contents()
    assert len(found) > 20
    return found


def forget(results: Path) -> None:
    for folder in ("scores", "regions", "overlap"):
        shutil.rmtree(results / folder)


def kill_a_job(controller: int) -> None:
    """Kill one process that the controller has started, if there is one."""
    jobs = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    threads = Path(f"/proc/{controller}/task").glob("*/children")
    jobs = [job for children in threads for job in children.read_text().split()] or jobs
    if jobs:
        os.kill(int(random.choice(jobs)), signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find a run's jobs")
def test_kills_change_nothing(project):
    """A run is killed at twelve random moments, sometimes after one of its jobs; each run continues the last."""
    results, rng = project.folder / "results", random.Random(0)
    before = contents(project)
    forget(results)
    for moment in range(MOMENTS):
        run = project.start(GATHERED, "--cores", "2", "--resources", "gpu=8", said=subprocess.DEVNULL)
        deadline = time.monotonic() + rng.uniform(0.5, 8)
        while run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if run.poll() is None and moment % 3 == 0:
            kill_a_job(run.pid)
            time.sleep(rng.uniform(0, 1))
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        project.snakemake("--unlock")
        if (results / "overlap/iou.parquet").exists():
            forget(results)  # the run was complete: the other kills hit a new one
    project.run(GATHERED)
    after = contents(project)
    assert {path for path in before if after.get(path) != before[path]} == set()
    assert "Nothing to be done" in project.snakemake(GATHERED, "--cores", "1").stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_named_and_loses_nothing(project):
    results = project.folder / "results"
    before = contents(project)
    forget(results)
    stored = project.folder / "stored"
    results.rename(stored)
    results.mkdir()
    used = sum(path.stat().st_size for path in stored.rglob("*") if path.is_file())
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={used + 400_000}", "tmpfs", str(results)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    try:
        shutil.copytree(stored, results, dirs_exist_ok=True, copy_function=shutil.copy2)
        failed = project.snakemake(GATHERED, "--cores", "2", check=False)
        said = failed.stdout + failed.stderr
        assert failed.returncode != 0 and "No space left on device" in said and "free some space" in said
        assert "results/scores/tiny/" in said
        subprocess.run(["mount", "-o", "remount,size=64m", str(results)], check=True)
        project.run(GATHERED)
        after = contents(project)
        assert {path for path in before if after.get(path) != before[path]} == set()
        assert [path for path in results.rglob("*") if path.name.endswith(".part")] == []
    finally:
        subprocess.run(["umount", str(results)], check=True)


DAMAGED = {
    "scores/tiny/snip/one.parquet": "select_region",
    "regions/tiny/snip/one/row-0.05/raw.safetensors": "count_membership",
    "overlap/tiny/snip/row-0.05/raw.membership.parquet": "compute_overlap",
    "overlap/tiny/snip/row-0.05/raw.parquet": "gather_overlaps",
}


def flip(content: bytearray) -> bytes:
    content[len(content) // 3] ^= 0x10
    return bytes(content)


@pytest.mark.parametrize(
    "damage", [flip, lambda content: bytes(content[: len(content) // 2])], ids=["flip", "cut"]
)
def test_a_damaged_file_never_changes_a_result(project, damage):
    """The job that reads a damaged file fails, its error names the file and a remedy, and the remedy restores the file.

    Otherwise, the damage is in bytes that no job reads, and changes no number.
    """
    results = project.folder / "results"
    before = contents(project)
    for path in DAMAGED:
        file = results / path
        project.run(f"results/{path}")  # intermediate files may have been removed since the last damage
        file.write_bytes(damage(bytearray(file.read_bytes())))
        failed = project.snakemake(GATHERED, "--cores", "2", check=False)
        said = failed.stdout + failed.stderr
        if failed.returncode:
            assert "delete the file and run snakemake again" in said and f"results/{path}" in said, path
        else:  # the flip hit a byte that no job reads, such as a page's statistics: no other file has changed
            assert damage is flip, path
            now = contents(project)
            assert {other for other in now if str(other) != path and now[other] != before[other]} == set()
        file.unlink()
        project.run(GATHERED)
    project.run(*(str(Path("results") / path) for path in before))
    after = contents(project)
    assert {path for path in before if after.get(path) != before[path]} == set()
