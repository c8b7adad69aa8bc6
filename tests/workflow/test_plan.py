"""Snakemake plans the whole study, and accepts a file only under the one spelling of its name."""

import re

import pytest
import yaml

from safety_regions.formats.contracts import PROMPTS, USABLE
from safety_regions.formats.parquet import read_metadata, read_table
from safety_regions.model.devices import visible_gpus
from tests.paths import ROOT
from tests.workflow.conftest import log_of, make_project


def test_the_tiny_study_is_planned_whole(unrun):
    """The plan has two identification sets, one utility set and two methods, with raw and refined regions."""
    planned = unrun.plan()
    scored = {"read_prompts": 3, "write_responses": 3, "score": 6, "select_region": 6}
    compared = {"refine_region": 4, "count_membership": 4, "compute_overlap": 4, "gather_overlaps": 1}
    assert {rule: planned[rule] for rule in scored | compared} == scored | compared


@pytest.mark.parametrize(
    "asked, spelling", [("two+one", "one+two"), pytest.param("one~07", "one~7", marks=pytest.mark.slow)]
)
def test_another_spelling_is_refused_before_any_job(unrun, asked, spelling):
    done = unrun.snakemake(f"results/scores/tiny/wanda/{asked}.parquet", "--dry-run", check=False)
    assert done.returncode == 1
    assert (
        f"name '{asked}': found a non-standard spelling; expected '{spelling}'" in done.stdout + done.stderr
    )


@pytest.mark.slow
def test_equal_numbers_and_dropped_prompts_plan_one_more_job_each(unrun, tmp_path):
    """One count for the backbone, and for each set a comparison with the sets before it."""
    project = make_project(tmp_path / "project")
    plain = unrun.plan()
    project.config = {
        **project.config,
        "samples": {**project.config["samples"], "equal": True, "drop_shared": True},
    }
    assert project.plan() == {**plain, "count_usable": 1, "compare_with_earlier": 3}


@pytest.mark.slow
def test_every_set_is_cut_to_the_smallest(tmp_path):
    project = make_project(tmp_path / "project")
    project.prompts("one", 1, n=7)
    project.config = {**project.config, "samples": {**project.config["samples"], "equal": True}}
    project.run("results/scores/tiny/wanda/two.parquet")
    usable = read_table(project.folder / "results/usable/tiny.parquet", USABLE).to_pylist()
    (smallest,) = (row["n_usable"] for row in usable if row["dataset"] == "one")
    used = read_metadata(project.folder / "results/scores/tiny/wanda/two.parquet")["prompts_used"]
    assert len(used) == smallest < 9


@pytest.mark.slow
@pytest.mark.parametrize("names", ["*", "safety_regions_*"])
def test_another_workflow_can_import_the_whole_study(unrun, tmp_path, names):
    """With the Snakefile of docs/module.md, from a folder that has a config and nothing else of this project.

    The study is a part of the config of that workflow, and has a folder of its own below its results. One job runs.
    """
    (text,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs/module.md").read_text(), re.DOTALL | re.MULTILINE
    )
    text = text.replace("/path/to/safety-regions", str(unrun.folder)).replace("safety_regions_*", names)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump({"mine": 3, "safety_regions": unrun.config}))
    (tmp_path / "Snakefile").write_text(text)
    (tmp_path / "tiny").symlink_to(unrun.folder / "tiny")
    place = ("--snakefile", str(tmp_path / "Snakefile"), "--directory", str(tmp_path))
    prefix = names.removesuffix("*")
    planned = unrun.plan(f"{prefix}study", *place)
    assert {name.removeprefix(prefix): n for name, n in planned.items()} == {**unrun.plan(), "study": 1}
    if prefix:
        prompts = "results/safety_regions/prompts/one.parquet"
        unrun.snakemake(prompts, "--cores", "1", *place)
        assert read_table(tmp_path / prompts, PROMPTS).num_rows == 24
        assert (tmp_path / "logs/safety_regions/read_prompts/one.log").exists()
        assert {path.name for path in (tmp_path / "results").iterdir()} == {"safety_regions"}


@pytest.mark.slow
def test_the_snakefile_of_the_workflow_folder_plans_the_study(unrun):
    assert unrun.plan("--snakefile", "workflow/Snakefile") == {**unrun.plan(), "study": 1}


@pytest.mark.slow
def test_a_folder_with_colons_and_spaces_plans_the_study(unrun, tmp_path):
    """Runs are often named by date and time."""
    assert make_project(tmp_path / "run of 12:30:05").plan() == unrun.plan()


@pytest.mark.slow
def test_a_home_that_cannot_be_written_needs_another_cache_folder(unrun, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/dev/null/home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert unrun.plan()["score"] == 6


@pytest.mark.slow
@pytest.mark.skipif(bool(visible_gpus()), reason="jobs share a GPU here")
def test_jobs_that_load_a_model_run_side_by_side_on_a_machine_without_gpu(tmp_path):
    """The profile allows one GPU at a time, so a job that asked for one would wait for the other."""
    project = make_project(tmp_path / "project")
    wanted = [f"results/responses/tiny/{name}.parquet" for name in ("one", "two")]
    said = log_of(project.snakemake(*wanted, "--cores", "2"))
    started = [said.index(f"Generating the responses of tiny to {name}") for name in ("one", "two")]
    assert max(started) < said.index("(Rule: write_responses)"), "both start before one ends"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [("", "keys at top level"), ("- a\n- b\n", "keys at top level"), ("a:\n\tb: 1\n", "whitespace and tab")],
)
def test_a_config_that_holds_no_keys_is_one_sentence(unrun, tmp_path, text, said):
    """Snakemake reads the file before any code of the project runs, and says what is wrong with it."""
    (tmp_path / "mine.yaml").write_text(text)
    done = unrun.snakemake("--dry-run", "--configfile", str(tmp_path / "mine.yaml"), check=False)
    assert done.returncode == 1
    assert said in done.stdout + done.stderr and "Traceback" not in done.stdout + done.stderr
