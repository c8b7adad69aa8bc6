"""Bad luck: killed runs, killed jobs, a full disk, damaged files. What comes out in the end has the same bits."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MOMENTS = 20


def contents(project) -> dict[Path, bytes]:
    found = project.contents()
    assert len(found) > 20
    return found


def forget(results: Path) -> None:
    for folder in ("scores", "regions", "overlap", "report"):
        shutil.rmtree(results / folder)


def kill_a_job(controller: int) -> None:
    """SIGKILL one process that the controller has started, where there is one."""
    jobs = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    threads = Path(f"/proc/{controller}/task").glob("*/children")
    jobs = [job for children in threads for job in children.read_text().split()] or jobs
    if jobs:
        os.kill(int(random.choice(jobs)), signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find a run's jobs")
def test_twenty_kills_change_nothing(project):
    """The controller with all its jobs, or one job alone, at random moments; every run goes on from the last."""
    results, rng = project.folder / "results", random.Random(0)
    before = contents(project)
    forget(results)
    for moment in range(MOMENTS):
        run = project.start("--cores", "2", "--resources", "gpu=8", said=subprocess.DEVNULL)
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
            forget(results)  # all done already: the rest of the kills hit another run from the start
    project.run()
    after = contents(project)
    assert {path for path in before if after.get(path) != before[path]} == set()
    assert "Nothing to be done" in project.snakemake("--cores", "1").stderr


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
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        shutil.copytree(stored, results, dirs_exist_ok=True, copy_function=shutil.copy2)
        failed = project.snakemake("--cores", "2", check=False)
        said = failed.stdout + failed.stderr
        assert failed.returncode != 0 and "No space left on device" in said and "free some space" in said
        assert "results/scores/tiny/" in said
        subprocess.run(["mount", "-o", "remount,size=64m", str(results)], check=True)
        project.run()
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
def test_a_damaged_file_is_never_taken_for_good(project, damage):
    """The job that reads it fails, its error names the file and the remedy, and the remedy heals everything.

    Or the damage is where nobody looks, and changes no number.
    """
    results = project.folder / "results"
    before = contents(project)
    for path in DAMAGED:
        file = results / path
        project.run(f"results/{path}")  # what only served to make others may be gone since the last damage
        file.write_bytes(damage(bytearray(file.read_bytes())))
        failed = project.snakemake("--cores", "2", check=False)
        said = failed.stdout + failed.stderr
        if failed.returncode:
            assert "delete the file and run snakemake again" in said and f"results/{path}" in said, path
        else:  # the flip hit a byte that nobody reads, such as a page's statistics: nothing else has changed
            assert damage is flip, path
            now = contents(project)
            assert {other for other in now if str(other) != path and now[other] != before[other]} == set()
        file.unlink()
        project.run()
    project.run(*(str(Path("results") / path) for path in before))
    after = contents(project)
    assert {path for path in before if after.get(path) != before[path]} == set()
