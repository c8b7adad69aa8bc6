"""If the download of a backbone breaks off, is killed or fails for a while, the study ends with the same bits."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from tests.model.hub.fake_hub import HANG_UP, STALL, FakeHub, serving
from tests.workflow.conftest import Project, make_project

pytestmark = pytest.mark.slow

REPO = "birds/tiny"
PIECE = 10 * 2**20  # bytes that huggingface_hub writes at a time
WEIGHTS = "^/cdn/models/birds/tiny/.*/model.safetensors"
SHA256 = "?" * 64  # a large file's name in the cache; a small file has a shorter name
TARGETS = ("results/overlap/iou.parquet", "results/prompts/shared_prompts.parquet")
# Every Python process of a run imports this as sitecustomize.py, which makes all waits short.
IMPATIENT = "import time\n\ntime.sleep = lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.1))\n"


@contextmanager
def connected(hub: FakeHub, home: Path) -> Iterator[None]:
    """Let runs that start in the block use only this Hub, and keep their downloads in ``home``."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HF_", "TRANSFORMERS_"))]:
            patch.delenv(name)
        for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(name, "1")
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "no_proxy": "*"}.items():
            patch.setenv(name, value)
        yield


def make_study(folder: Path) -> Project:
    """Make the tiny study with one method and no utility set; its only backbone is in a repository of the Hub."""
    project = make_project(folder)
    shutil.rmtree(folder / "tiny")
    config = project.config
    config["methods"] = {"snip": {}}
    config["datasets"] = {"identification": ["one", "two"]}
    config["cards"]["backbones"]["tiny"] = {
        "kind": "checkpoint", "family": "llama", "repo": REPO, "revision": "main",
    }  # fmt: skip
    project.config = config
    (folder / "sitecustomize.py").write_text(IMPATIENT)
    return project


def science(project: Project) -> dict[Path, bytes]:
    found = project.contents()
    assert len(found) >= 2 + 2 + 4, sorted(found)
    return found


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[FakeHub]:
    """Yield a Hub with the tiny Llama; an unused tensor makes its weights large enough to arrive in pieces."""
    checkpoint = make_project(tmp_path_factory.mktemp("checkpoint") / "project").folder / "tiny"
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    padding = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(3 * PIECE, dtype=torch.uint8)}
    files["model.safetensors"] = save(load(files["model.safetensors"]) | padding, {"format": "pt"})
    with serving() as hub:
        hub.add(REPO, files)
        yield hub


@pytest.fixture(scope="module")
def undisturbed(hub, tmp_path_factory) -> dict[Path, bytes]:
    """Return the results of the study when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    project = make_study(folder / "project")
    with connected(hub, folder / "home"):
        project.run(*TARGETS)
    return science(project)


@pytest.fixture
def study(undisturbed, hub, tmp_path) -> Iterator[Project]:
    """Yield the study before its first run, with an empty cache and a Hub without faults or earlier requests."""
    hub.faults.clear()
    hub.requests.clear()
    with connected(hub, tmp_path / "home"):
        yield make_study(tmp_path / "project")


def starts(hub: FakeHub) -> list[int]:
    """Return the first byte of each request for the weights."""
    return [request.start for request in hub.seen(REPO, "GET", WEIGHTS)]


def assert_whole(project: Project) -> None:
    """Check that the cache holds the weights once, and that their file name is their hash."""
    (weights,) = project.folder.parent.glob(f"home/hub/*/blobs/{SHA256}")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == weights.name


def test_downloads_that_break_off_are_resumed_and_change_nothing(study, hub, undisturbed):
    hub.fail("GET", WEIGHTS, times=2)
    hub.fail("GET", r"/resolve/.*/tokenizer.json", times=1, status=503)
    hub.fail("GET", r"/resolve/.*/config.json", times=1, status=HANG_UP)
    study.run(*TARGETS)
    assert [fault.times for fault in hub.faults] == [0, 0, 0], "every fault must have happened"
    assert starts(hub) == [0, PIECE, 2 * PIECE], "a broken download must continue after its last whole piece"
    assert_whole(study)
    assert science(study) == undisturbed


def test_a_run_killed_while_it_downloads_goes_on_from_whole_files(study, hub, undisturbed):
    hub.fail("GET", WEIGHTS, times=1, status=STALL)
    run = study.start(*TARGETS, "--cores", "2", "--resources", "gpu=8", said=subprocess.DEVNULL)
    try:
        part = wait_for_a_piece(study, run)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert PIECE <= part.stat().st_size < 3 * PIECE
    assert list(study.folder.glob("results/responses/**/*.parquet")) == []
    study.snakemake("--unlock")
    study.run(*TARGETS)
    assert starts(hub) == [0, 0], "a partly downloaded file must be fetched again, once"
    assert len(hub.seen(REPO, "GET", "/config.json")) == 1, "a complete file must not be fetched again"
    assert_whole(study)
    assert science(study) == undisturbed


def wait_for_a_piece(project: Project, run: subprocess.Popen, seconds: float = 120) -> Path:
    """Wait until a piece of the weights has arrived, and return the file that holds it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert run.poll() is None, "the run ended before its download"
        for path in project.folder.parent.glob(f"home/hub/*/blobs/{SHA256}.*.incomplete"):
            if path.stat().st_size >= PIECE:
                return path
        time.sleep(0.05)
    raise AssertionError("no download has begun")


def test_a_hub_that_stays_broken_is_named_and_what_it_gave_is_kept(study, hub, undisturbed):
    for status, found in {503: "server error.*http 503", None: "an interrupted one"}.items():
        hub.faults.clear()
        hub.fail("GET", WEIGHTS, times=10**6, status=status)
        failed = study.snakemake(*TARGETS, "--cores", "2", check=False)
        said = failed.stdout + failed.stderr
        assert failed.returncode == 1 and "Error in rule write_responses" in said and "Traceback" not in said
        assert re.search(rf"backbone {REPO}, revision .*{found}.* Try: run again later", said), said
    results = study.folder / "results"
    assert {path.stem for path in results.glob("prompts/*.parquet")} == {"one", "two", "shared_prompts"}
    assert list(results.glob("responses/**/*.parquet")) == []
    hub.faults.clear()
    study.run(*TARGETS)
    assert len(hub.seen(REPO, "GET", "/config.json")) == 1, "files that had arrived must be kept"
    assert_whole(study)
    assert science(study) == undisturbed
