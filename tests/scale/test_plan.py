"""The plan of the paper's grid has thousands of jobs, and each rule has as many as its sets and cells require."""

import pytest

from tests.scale.grid import PAPER, RESERVE, Size, jobs_of, make_grid, part_of_paper

WHOLE = Size(backbones=12, identification=10, utility=3, selections=2)


@pytest.mark.slow
def test_the_papers_grid_is_planned_whole(tmp_path):
    project = make_grid(tmp_path / "grid", WHOLE)
    assert project.config == PAPER == part_of_paper(WHOLE)
    planned = project.plan()
    assert planned == jobs_of(PAPER) and sum(planned.values()) > 5000
    assert RESERVE not in PAPER["datasets"]["identification"]
