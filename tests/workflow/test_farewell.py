"""A run that writes the first page, or finds it up to date, ends by saying where it is; other runs do not."""

import re

import pytest

from tests.workflow.conftest import log_of

pytestmark = pytest.mark.slow

SAID = "Open this page first:  results/report/index.html"


def test_a_run_that_writes_the_page_says_where_it_is(project):
    (project.folder / "results/report/index.html").unlink()
    done = project.run()
    assert done.stdout.rstrip().endswith(SAID)
    steps = re.findall(r"^\d\d:\d\d:\d\d  (\d+) of (\d+) \(\d+%\)  (.+)$", done.stderr, flags=re.MULTILINE)
    assert ("1", steps[0][1], "Writing the first page") in steps and len(steps) == int(steps[0][1])
    assert "Finished jobid" in log_of(done) and "Finished jobid" not in done.stderr


def test_a_run_that_finds_the_page_up_to_date_says_where_it_is(project):
    another = "results/regions/tiny/snip/one/row-0.04/raw.safetensors"
    done = project.run("results/report/index.html", another)
    assert (project.folder / another).exists()
    assert SAID in done.stdout and "Writing the first page" not in done.stdout + done.stderr


def test_a_run_that_stops_before_the_page_does_not(project):
    (project.folder / "results/prompts/shared_prompts.parquet").unlink()
    assert SAID not in project.snakemake("--cores", "1", "--until", "compare_prompts").stdout
    assert (project.folder / "results/report/index.html").exists()


def test_a_run_for_another_file_does_not(project):
    (project.folder / "results/report/refusals.svg").unlink()
    assert SAID not in project.run("results/report/refusals.svg").stdout
