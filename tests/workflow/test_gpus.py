"""Local jobs that ask for a GPU get one each, and those that ask for none see none."""

import re
import shutil

import pytest

from safety_regions.model.devices import VISIBLE, assigned_gpus

pytestmark = pytest.mark.slow


def assigned(project, rule: str) -> list[str]:
    """Return the GPUs that the log of each job of a rule names."""
    logs = (project.folder / "logs" / rule).rglob("*.log")
    return [re.search(r"GPUs assigned: (.+) of 4, 6", log.read_text())[1] for log in logs]


def test_a_job_takes_a_gpu_that_no_other_process_holds(project, monkeypatch):
    """Six jobs share GPU 6 while this process holds GPU 4, although Snakemake is told that there are eight."""
    monkeypatch.setenv(VISIBLE, "4,6")
    for folder in ("scores", "regions", "overlap"):
        shutil.rmtree(project.folder / "results" / folder)
    with assigned_gpus(1) as held:
        monkeypatch.setenv(VISIBLE, "4,6")
        project.run("results/overlap/iou.parquet")
    assert held == ("4",) and assigned(project, "score") == ["6"] * 6


def test_a_job_that_asks_for_none_sees_none(project, monkeypatch):
    monkeypatch.setenv(VISIBLE, "4,6")
    (project.folder / "results" / "scores" / "tiny" / "snip" / "one.parquet").unlink()
    project.run("results/scores/tiny/snip/one.parquet", "--set-resources", "score:gpu=0")
    assert (
        (project.folder / "logs/score/tiny/snip/one.log")
        .read_text()
        .startswith("GPUs assigned: none of 4, 6")
    )
