"""The tiny study runs from end to end, and its files have the right contracts and contents."""

import html
import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors import safe_open

from safety_regions.formats.contracts import IOU, RESPONSES, WEIGHT_SCORES
from safety_regions.formats.parquet import open_table, read_metadata, read_table
from safety_regions.formats.region import read_region
from safety_regions.study.forked_jobs import SWITCH
from tests.report.shown import links_of

pytestmark = pytest.mark.slow

NAMES = ("one", "two", "plain")


def test_every_promised_file_is_there(finished):
    results = finished.folder / "results"
    expected = [f"prompts/{name}.parquet" for name in NAMES]
    expected += [f"responses/tiny/{name}.parquet" for name in NAMES]
    for method in ("snip", "wanda"):
        expected += [
            f"scores/tiny/{method}/{name}{part}.parquet" for name in NAMES for part in ("", ".sample")
        ]
        expected += [f"regions/tiny/{method}/{name}/row-0.05/raw.safetensors" for name in NAMES]
        for refinement in ("raw", "minus-plain"):
            cell = f"overlap/tiny/{method}/row-0.05/{refinement}"
            expected += [f"{cell}.membership.parquet", f"{cell}.parquet", f"{cell}.iou.tsv"]
    expected += ["prompts/shared_prompts.parquet", "overlap/iou.parquet", "overlap/region_sizes.parquet"]
    assert [path for path in expected if not (results / path).is_file()] == []
    assert list(results.rglob("*.part")) == []


def test_scores_say_where_they_come_from(finished):
    path = finished.folder / "results/scores/tiny/snip/one.parquet"
    metadata = read_metadata(path)
    assert metadata["samples_used"] == 9 and metadata["backbone"] == "tiny" and metadata["name"] == "one"
    assert metadata["options"]["loss"] == "mean" and metadata["kept"] == {"matrix": 0.05, "row": 0.05}
    file = open_table(path, WEIGHT_SCORES)
    assert file.num_row_groups == len(metadata["shapes"]) == 21


def test_a_region_opens_with_safetensors_alone(finished):
    """Users can read a region file without this package."""
    path = finished.folder / "results/regions/tiny/snip/one/row-0.05/raw.safetensors"
    with safe_open(path, framework="numpy") as file:
        shape = json.loads(file.metadata()["region"])["shapes"]["layers.0.q"]
        bits = np.unpackbits(file.get_tensor("layers.0.q"), count=shape[0] * shape[1])
    mask = bits.reshape(shape).astype(bool)
    assert (mask.sum(axis=1) == int(0.05 * shape[1])).all()


def test_the_aggregation_is_the_regions_own_overlap(finished):
    iou = read_table(finished.folder / "results/overlap/iou.parquet", IOU).to_pandas()
    assert set(iou["refinement"]) == {"raw", "minus-plain"} and set(iou["method"]) == {"snip", "wanda"}
    regions = {}
    for name in ("one", "two"):
        region = read_region(
            finished.folder / f"results/regions/tiny/wanda/{name}/row-0.05/minus-plain.safetensors"
        )
        regions[name] = {a: int.from_bytes(bits.tobytes()) for a, bits in region.masks.items()}
    both = sum((regions["one"][a] & regions["two"][a]).bit_count() for a in regions["one"])
    either = sum((regions["one"][a] | regions["two"][a]).bit_count() for a in regions["one"])
    row = iou.query("method == 'wanda' and refinement == 'minus-plain' and level == 'model'").iloc[0]
    assert (row["intersection"], row["union"]) == (both, either) and row["iou"] == both / either


def test_the_matrix_is_square(finished):
    path = finished.folder / "results/overlap/tiny/snip/row-0.05/raw.iou.tsv"
    matrix = pd.read_csv(path, sep="\t", index_col=0)
    assert list(matrix.index) == list(matrix.columns) == ["one", "two"]
    assert matrix.loc["one", "one"] == 1 and matrix.loc["one", "two"] == matrix.loc["two", "one"]


def test_no_prompt_is_printed(finished):
    prompts = read_table(finished.folder / "results/responses/tiny/one.parquet", RESPONSES)[
        "prompt"
    ].to_pylist()
    logs = [p for folder in ("logs", ".snakemake/log") for p in (finished.folder / folder).rglob("*.log")]
    assert logs
    for path in logs:
        text = path.read_text()
        assert not any(prompt in text for prompt in prompts), path


def test_the_first_page_holds_the_study_and_no_prompt(finished):
    results = finished.folder / "results"
    page = (results / "report/index.html").read_text()
    table = read_table(results / "responses/tiny/one.parquet", RESPONSES)
    texts = [*table["prompt"].to_pylist(), *table["response"].to_pylist()]
    long = [text for text in texts if len(text) > 8]  # a random model also answers with single letters
    assert long and not [text for text in long if html.escape(text) in page]
    assert [link for link in links_of(page) if not (results / "report" / link).exists()] == []
    assert "write_responses" in page, "the time of its jobs"
    config = html.unescape(page.rpartition("<pre>")[2].partition("</pre>")[0])
    assert yaml.safe_load(config) == finished.config


def test_a_killed_run_resumes_and_gives_the_same_bits(project):
    """A run that is killed (SIGKILL) while it scores continues when it is started again."""
    results = project.folder / "results"
    kept = project.contents()
    assert len(kept) > 20
    for folder in ("scores", "regions", "overlap"):
        shutil.rmtree(results / folder)
    run = project.start("--cores", "2", "--resources", "gpu=8", said=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(results.glob("scores/*/*/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert list(results.glob("scores/*/*/*.parquet")) and not (results / "overlap/iou.parquet").exists()
    project.snakemake("--unlock")
    project.run()
    assert project.contents() == kept


def test_jobs_that_are_forks_give_the_bits_of_jobs_that_are_not(project, monkeypatch):
    kept = project.contents()
    for folder in ("scores", "regions", "overlap"):
        shutil.rmtree(project.folder / "results" / folder)
    monkeypatch.setenv(SWITCH, "0")
    project.run()
    assert project.contents() == kept


def test_a_key_given_twice_is_an_error_and_nested_values_of_the_command_line_are_typed(project):
    """Snakemake parses the config: it keeps the last of two equal keys, and hands over `--config` as text."""
    text = yaml.safe_dump(project.config)
    (project.folder / "mine.yaml").write_text(f"seed: 1\n{text}seed: 2\n")
    done = project.snakemake("--dry-run", "--configfile", "mine.yaml", check=False)
    assert done.returncode != 0 and "mine.yaml: seed: found this key in lines 1, " in done.stderr
    few = "samples={identify: 2, candidates: 1}"
    done = project.snakemake("--dry-run", "--config", few, check=False)
    assert "samples: candidates: found 1; expected at least identify (2)" in done.stderr
    assert "1 problem\n" in done.stderr


def test_errors_of_the_config_name_its_file(project):
    """Errors name the config file that Snakemake was given; if there are several, they name none of them."""
    bad = project.config | {"methods": {"wanad": {}}}
    for name in ("config.yaml", "mine.yaml"):
        (project.folder / name).write_text(yaml.safe_dump(bad))
    for given, where in (
        ((), "config.yaml"),
        (("--configfile", "mine.yaml"), "mine.yaml"),
        (("--configfile", "config.yaml", "mine.yaml"), "config"),
    ):
        done = project.snakemake("--dry-run", *given, check=False)
        assert done.returncode != 0 and f"  - {where}: methods: wanad: unknown method" in done.stderr
