"""A run that writes the summary, or finds it up to date, ends by saying where it is; other runs do not."""

import pytest

pytestmark = pytest.mark.slow

SAID = "report/summary.html     start here"


def test_a_run_that_writes_the_summary_says_where_it_is(project):
    (project.folder / "results/report/summary.html").unlink()
    assert SAID in project.run().stdout


def test_a_run_that_finds_the_summary_up_to_date_says_where_it_is(project):
    (project.folder / "results/report/refusals.svg").unlink()
    said = project.run().stdout
    assert SAID in said and "Writing the summary" not in said


def test_a_run_that_stops_before_the_summary_does_not(project):
    (project.folder / "results/prompts/shared_prompts.parquet").unlink()
    assert SAID not in project.snakemake("--cores", "1", "--until", "compare_prompts").stdout
    assert (project.folder / "results/report/summary.html").exists()


def test_a_run_for_another_file_does_not(project):
    (project.folder / "results/report/refusals.svg").unlink()
    assert SAID not in project.run("results/report/refusals.svg").stdout
