"""A file can be asked for under the one spelling of its name only."""

import pytest


@pytest.mark.parametrize("asked, spelling", [("two+one", "one+two"), ("one~07", "one~7")])
def test_another_spelling_is_refused_before_any_job(finished, asked, spelling):
    done = finished.snakemake(f"results/scores/tiny/wanda/{asked}.parquet", "--dry-run", check=False)
    assert done.returncode == 1
    assert f"name '{asked}': found another spelling; expected '{spelling}'" in done.stdout + done.stderr
