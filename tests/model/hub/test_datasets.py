"""Query sets from a Hub on loopback, through the real huggingface_hub and datasets."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.model.hub.conftest import refused
from tests.prompts.cards import SECRET

OLD, NEW = ["one", "two"], ["one", "two", SECRET]


def card(repo: str, revision: str = "main", **hub) -> dict:
    source = {"repo": repo, "revision": revision, "split": "train", **hub}
    return {
        "role": "identification",
        "title": "Birds",
        "licence": "MIT",
        "hub": source,
        "columns": {"prompt": "ask"},
    }


def lines(texts: list[str]) -> dict[str, bytes]:
    return {
        "train.jsonl": "".join(json.dumps({"ask": text, "talk": [text]}) + "\n" for text in texts).encode()
    }


def parquet(texts: list[str]) -> dict[str, bytes]:
    """The layout of most sets on the Hub: a card with configs, parquet files in ``data``."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"ask": texts, "other": range(len(texts))}), buffer)
    names = "\n".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/*.parquet"
        for name in ("big", "small")
    )
    readme = f"---\nconfigs:\n{names}\n---\n# Birds\n"
    return {"README.md": readme.encode(), **{f"{n}/0.parquet": buffer.getvalue() for n in ("big", "small")}}


@pytest.mark.slow
@pytest.mark.parametrize("layout", [lines, parquet])
def test_a_revision_is_a_commit_in_the_metadata(hub, job, layout):
    repo = f"nest/set-{layout.__name__}"
    old = hub.add(repo, layout(OLD), "datasets")
    new = hub.add(repo, layout(NEW), "datasets")
    hub.repos["datasets", repo].branches["old"] = old
    config = {"config": "small"} if layout is parquet else {}
    for revision, (commit, count) in {
        "main": (new, 3),
        "old": (old, 2),
        old: (old, 2),
        new: (new, 3),
    }.items():
        found = job.load("dataset", card(repo, revision, **config))
        assert (found["commit"], found["revision"], found["prompts"]) == (commit, revision, count), found
    assert not hub.seen(repo, "GET", "/big/"), "a config that was not asked for"


@pytest.mark.slow
def test_a_config_or_split_that_is_not_there(hub, job):
    hub.add("nest/configs", parquet(OLD), "datasets")
    assert "no config 'huge'" in refused(job.load("dataset", card("nest/configs", config="huge")))
    assert "no config 'None'" in refused(job.load("dataset", card("nest/configs")))
    assert "no split 'test'" in refused(job.load("dataset", card("nest/configs", config="big", split="test")))


@pytest.mark.parametrize("status", [401, 403])
def test_gated(hub, job, status):
    repo = f"nest/gated-set{status}"
    hub.add(repo, lines(OLD), "datasets", gate=status)
    message = refused(job.load("dataset", card(repo)))
    assert f"dataset 'birds': {repo}, revision main" in message and "gated or private dataset" in message
    assert f"https://huggingface.co/datasets/{repo}" in message and "hf auth login" in message


def test_no_such_dataset_and_no_such_revision(hub, job):
    assert "no such dataset" in refused(job.load("dataset", card("nest/missing-set")))
    hub.add("nest/here-set", lines(OLD), "datasets")
    for revision in ("v9", "0" * 40):
        message = refused(job.load("dataset", card("nest/here-set", revision)))
        assert f"no revision '{revision}'" in message
    hub.add("nest/empty-set", {"notes.bin": b"x"}, "datasets")
    assert "no data files" in refused(job.load("dataset", card("nest/empty-set")))


FILES = {
    "the commit": ("GET", r"^/api/datasets/{repo}(/revision/main)?$"),
    "the listing": ("GET", r"^/api/datasets/{repo}/tree/"),
    "the head of the data": ("HEAD", r"{repo}/resolve/.*/train.jsonl"),
    "the data": ("GET", r"{repo}/resolve/.*/train.jsonl"),
}


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("what", FILES)
def test_a_busy_hub_is_asked_again(hub, job, what, status):
    repo = f"nest/busy-set{list(FILES).index(what)}-{status}"
    hub.add(repo, lines(NEW), "datasets")
    method, pattern = FILES[what]
    hub.fail(method, pattern.format(repo=repo), times=2, status=status)
    found = job.load("dataset", card(repo))
    assert found.get("prompts") == 3, found
    assert hub.faults[-1].times == 0 and sum(found["slept"]) >= 1


@pytest.mark.parametrize(("status", "says"), [(429, "too many requests"), (503, "server error")])
def test_a_hub_that_stays_busy(hub, job, status, says):
    repo = f"nest/jammed-set{status}"
    hub.add(repo, lines(NEW), "datasets")
    hub.fail("GET", f"{repo}/resolve/.*/train.jsonl", times=10**6, status=status)
    message = refused(job.load("dataset", card(repo)))
    assert says in message and f"http {status}" in message and "again later" in message


def test_a_download_that_breaks_off_is_tried_again(hub, job):
    hub.add("nest/cut-set", lines(NEW), "datasets")
    hub.fail("GET", "nest/cut-set/resolve/.*/train.jsonl", times=2)
    assert job.load("dataset", card("nest/cut-set"))["prompts"] == 3


def test_a_loading_script_is_refused_and_not_run(hub, job, tmp_path):
    trace = tmp_path / "was-run"
    script = f"open({str(trace)!r}, 'w')"
    hub.add("nest/scripted", {"scripted.py": script.encode(), **lines(OLD)}, "datasets")
    message = refused(job.load("dataset", card("nest/scripted")))
    assert "a loading script" in message and "never run" in message and not trace.exists()


def test_a_file_that_is_no_table_shows_no_row(hub, job):
    hub.add("nest/torn", {"train.jsonl": f'{{"ask": "{SECRET}'.encode()}, "datasets")
    message = refused(job.load("dataset", card("nest/torn")))
    assert "cannot be loaded" in message and SECRET not in message


@pytest.mark.slow
def test_offline(hub, job, offline_job):
    commit = hub.add("nest/kept-set", lines(OLD), "datasets")
    online = job.load("dataset", card("nest/kept-set"))
    asked = len(hub.requests)
    for revision in ("main", commit):
        found = offline_job.load("dataset", card("nest/kept-set", revision))
        assert (found["commit"], found["sha256"]) == (commit, online["sha256"]), found
    hub.add("nest/never-set", lines(OLD), "datasets")
    assert "HF_HUB_OFFLINE=0" in refused(offline_job.load("dataset", card("nest/never-set")))
    assert len(hub.requests) == asked


@pytest.mark.slow
def test_offline_the_copy_of_another_revision_is_refused(hub, job, offline_job):
    """The library would serve the last copy that was read, whatever the revision."""
    old = hub.add("nest/moved", lines(OLD), "datasets")
    hub.repos["datasets", "nest/moved"].branches["old"] = old
    assert job.load("dataset", card("nest/moved", "old"))["prompts"] == 2
    new = hub.add("nest/moved", lines(NEW), "datasets")
    assert job.load("dataset", card("nest/moved"))["prompts"] == 3
    message = refused(offline_job.load("dataset", card("nest/moved", "old")))
    assert f"a cached copy of commit {new}; expected commit {old}" in message
