"""Checkpoints from a Hub on loopback, through the real huggingface_hub and transformers."""

import errno
import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import load, save

from safety_regions.errors import StudyError
from safety_regions.model.hub import Place, from_hub
from tests.model.hub.conftest import refused
from tests.model.hub.fake_hub import HANG_UP, SHORT
from tests.tiny import tiny_backbone


def card(repo: str, revision: str = "main") -> dict:
    return {"repo": repo, "revision": revision, "dtype": "float32", "template": "native"}


@pytest.fixture(scope="module")
def weights() -> str:
    """The digest of the weights that every repository of this file holds."""
    digest = hashlib.sha256()
    for _, weight in tiny_backbone("llama").weights():
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def changed(files: dict[str, bytes], **settings) -> dict[str, bytes]:
    """The files with other settings in config.json."""
    config = {**json.loads(files["config.json"]), **settings}
    return {**files, "config.json": json.dumps(config).encode()}


@pytest.mark.slow
def test_a_revision_is_a_commit_in_the_metadata(hub, job, checkpoint, weights):
    old = hub.add("nest/model", changed(checkpoint, rms_norm_eps=1e-3))
    new = hub.add("nest/model", checkpoint)
    hub.repos["models", "nest/model"].branches["old"] = old
    for revision, commit in {"main": new, "old": old, old: old, new: new}.items():
        found = job.load("backbone", card("nest/model", revision))
        assert (found["source"], found["revision"]) == ("nest/model", commit), found
        assert found["weights"] == weights
    assert len(hub.seen("nest/model", "GET", "safetensors$")) == 1, "the same in both commits"


@pytest.mark.slow
def test_a_checkpoint_in_parts(hub, job, sharded, weights):
    hub.add("nest/parts", {**sharded, "consolidated.safetensors": b"x"})
    assert job.load("backbone", card("nest/parts"))["weights"] == weights
    assert not hub.seen("nest/parts", "GET", "consolidated"), "the same weights once more"


@pytest.mark.parametrize("status", [401, 403])
def test_gated(hub, job, checkpoint, status):
    hub.add(f"nest/gated{status}", checkpoint, gate=status)
    message = refused(job.load("backbone", card(f"nest/gated{status}")))
    assert f"backbone nest/gated{status}, revision main" in message and f"http {status}" in message
    assert "gated" in message and "accept its terms at https://huggingface.co/nest/" in message
    assert "hf auth login" in message


def test_gated_after_its_small_files_were_cached(hub, job, checkpoint):
    commit = hub.add("nest/closed", {n: b for n, b in checkpoint.items() if n != "model.safetensors"})
    assert "no safetensors" in refused(job.load("backbone", card("nest/closed")))
    hub.repos["models", "nest/closed"].commits[commit] |= {"model.safetensors": b"x"}
    hub.add("nest/closed", checkpoint)
    hub.repos["models", "nest/closed"].gate = 403
    assert "gated" in refused(job.load("backbone", card("nest/closed")))


def test_no_such_repository_and_no_such_revision(hub, job, checkpoint):
    message = refused(job.load("backbone", card("nest/missing")))
    assert "no such model" in message and "nest/missing" in message and "hf auth login" in message
    hub.add("nest/here", checkpoint)
    for revision in ("v9", "0" * 40):
        message = refused(job.load("backbone", card("nest/here", revision)))
        assert f"no revision '{revision}'" in message and "/nest/here/commits/main" in message
    assert "not a valid id" in refused(job.load("backbone", card("nest/he re")))


FILES = {
    "the commit": ("GET", r"^/api/models/{repo}(/revision/main)?$"),
    "the listing": ("GET", r"^/api/models/{repo}/tree/"),
    "a small file": ("GET", r"{repo}/resolve/.*/tokenizer_config.json"),
    "the head of a small file": ("HEAD", r"{repo}/resolve/.*/chat_template.jinja"),
    "the weights": ("GET", r"^/cdn/models/{repo}/.*/model.safetensors"),
}


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("what", FILES)
def test_a_busy_hub_is_asked_again(hub, job, checkpoint, weights, what, status):
    repo = f"nest/busy-{list(FILES).index(what)}-{status}"
    hub.add(repo, checkpoint)
    method, pattern = FILES[what]
    hub.fail(method, pattern.format(repo=repo), times=2, status=status)
    found = job.load("backbone", card(repo))
    assert found.get("weights") == weights, found
    assert hub.faults[-1].times == 0 and sum(found["slept"]) >= 1


@pytest.mark.parametrize(("status", "says"), [(429, "too many requests"), (503, "server error")])
def test_a_hub_that_stays_busy(hub, job, checkpoint, status, says):
    """Also for a file that transformers would do without."""
    hub.add(f"nest/jammed{status}", checkpoint)
    hub.fail("GET", rf"jammed{status}/resolve/.*/generation_config.json", times=10**6, status=status)
    message = refused(job.load("backbone", card(f"nest/jammed{status}")))
    assert says in message and f"http {status}" in message and "again later" in message


@pytest.mark.slow
def test_a_download_that_breaks_off_is_resumed(hub, job, checkpoint, weights):
    """What has arrived in whole pieces of 10 MiB, as the library writes them, is not asked for again."""
    padding = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(50 * 2**20, dtype=torch.uint8)}
    padded = save(load(checkpoint["model.safetensors"]) | padding, {"format": "pt"})
    hub.add("nest/cut", {**checkpoint, "model.safetensors": padded})
    hub.fail("GET", "^/cdn/models/nest/cut/", times=2)
    assert job.load("backbone", card("nest/cut"))["weights"] == weights
    starts = [request.start for request in hub.seen("nest/cut", "GET", "safetensors$")]
    assert starts == [0, 20 * 2**20, 30 * 2**20], "a half of 50 MiB, then a half of 30 MiB, in whole pieces"


def test_a_download_that_always_breaks_off(hub, job, checkpoint):
    hub.add("nest/broken", checkpoint)
    hub.fail("GET", "^/cdn/models/nest/broken/", times=10**6)
    message = refused(job.load("backbone", card("nest/broken")))
    assert "interrupted" in message and "again later" in message


def test_a_short_file_that_says_it_is_whole_is_fetched_again(hub, job, checkpoint, weights):
    hub.add("nest/short", checkpoint)
    hub.fail("GET", "/cdn/models/nest/short/.*safetensors", times=1, status=SHORT)
    assert job.load("backbone", card("nest/short"))["weights"] == weights
    hub.add("nest/shorter", checkpoint)
    hub.fail("GET", "/cdn/models/nest/shorter/.*safetensors", times=100, status=SHORT)
    message = refused(job.load("backbone", card("nest/shorter")))
    assert "backbone nest/shorter" in message and "interrupted" in message


def test_what_a_message_quotes_is_no_sign():
    """A row of a set may hold any words; only classes, states and the texts of a library tell a trouble."""
    quoted = ValueError("GatedRepoError http 403, OfflineMode, ConnectError, http 503, a Revision 'x'")

    def load():
        raise quoted

    with pytest.raises(ValueError) as raised:
        from_hub(Place("backbone a/b", "a/b", "main", "model"), load)
    assert raised.value is quoted


def test_a_full_cache_names_the_repository_and_the_place():
    def load():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(
        StudyError, match=r"backbone a/b, revision main: found no room .*HF_HOME.*Try: free some"
    ):
        from_hub(Place("backbone a/b", "a/b", "main", "model"), load)


def test_a_damaged_file_is_one_clear_message(hub, job, checkpoint):
    hub.add("nest/damaged", {**checkpoint, "model.safetensors": checkpoint["model.safetensors"][:5000]})
    assert "SafetensorError" in refused(job.load("backbone", card("nest/damaged")))


@pytest.mark.slow
def test_offline(hub, job, offline_job, checkpoint, weights):
    commit = hub.add("nest/kept", checkpoint)
    assert job.load("backbone", card("nest/kept"))["weights"] == weights
    asked = len(hub.requests)
    for revision in ("main", commit):
        found = offline_job.load("backbone", card("nest/kept", revision))
        assert (found["weights"], found["revision"]) == (weights, commit)
    hub.add("nest/never", checkpoint)
    for repo, revision in {"nest/never": "main", "nest/kept": "0" * 40}.items():
        message = refused(offline_job.load("backbone", card(repo, revision)))
        assert f"{repo}, revision {revision}" in message and "HF_HUB_OFFLINE=0" in message
    assert len(hub.requests) == asked


@pytest.mark.slow
def test_offline_after_half_a_download(hub, job, offline_job, checkpoint):
    """The tokenizer's files are there, the weights are not."""
    hub.add("nest/half", checkpoint)
    hub.fail("GET", "^/cdn/models/nest/half/", times=10**6, status=404)
    assert "http 404" in refused(job.load("backbone", card("nest/half")))
    assert "HF_HUB_OFFLINE=0" in refused(offline_job.load("backbone", card("nest/half")))


def test_without_a_connection(hub, job, checkpoint):
    """The server hangs up on every request."""
    hub.add("nest/silent", checkpoint)
    hub.fail("GET", "nest/silent", times=10**6, status=HANG_UP)
    assert "no response from the Hub" in refused(job.load("backbone", card("nest/silent")))


def test_pickled_weights_are_refused_and_not_downloaded(hub, job, checkpoint):
    pickled = {**checkpoint, "pytorch_model.bin": b"never to be opened"}
    del pickled["model.safetensors"]
    hub.add("nest/pickled", pickled)
    asked = len(hub.requests)
    message = refused(job.load("backbone", card("nest/pickled")))
    assert "backbone nest/pickled" in message and "no safetensors weights" in message
    assert all("nest/pickled" in request.path for request in hub.requests[asked:]), (
        "nobody is asked to convert it"
    )
    assert not [r for method in ("GET", "HEAD") for r in hub.seen("nest/pickled", method, r"\.bin$")]


CODE = {"modeling_bird.py": b"raise SystemExit('code of a checkpoint was run')"}
AUTO_MAP = {"AutoConfig": "modeling_bird.BirdConfig", "AutoModelForCausalLM": "modeling_bird.Bird"}


def test_code_of_a_checkpoint_is_neither_fetched_nor_run(hub, job, checkpoint, weights):
    """Refused where the architecture needs it; left alone where transformers knows the architecture."""
    hub.add("nest/foreign", {**changed(checkpoint, model_type="bird", auto_map=AUTO_MAP), **CODE})
    message = refused(job.load("backbone", card("nest/foreign")))
    assert "model_type 'bird'" in message and "never run" in message
    assert not hub.seen("nest/foreign", "GET", "safetensors$"), "refused before its weights are fetched"
    hub.add("nest/known", {**changed(checkpoint, auto_map=AUTO_MAP), **CODE})
    assert job.load("backbone", card("nest/known"))["weights"] == weights
    for repo in ("nest/foreign", "nest/known"):
        assert not [r for method in ("GET", "HEAD") for r in hub.seen(repo, method, r"\.py$")]


@pytest.mark.slow
def test_jobs_share_one_download(hub, job, other_job, sharded, weights):
    hub.add("nest/shared", sharded)
    parts = [name for name in sharded if name.endswith(".safetensors")]
    hub.held = ("nest/shared/.*safetensors$", 2)  # no part is sent before both jobs have asked for it
    for each in (job, other_job):
        each.send("backbone", card("nest/shared"))
    assert [each.receive().get("weights") for each in (job, other_job)] == [weights, weights]
    hub.held = None
    for name in parts:
        assert len(hub.seen("nest/shared", "HEAD", name)) == 2, "both jobs came before it was there"
        assert len(hub.seen("nest/shared", "GET", name)) == 1


def test_one_gguf_file_of_a_repository(hub, job):
    body = b"GGUF of birds"
    commit = hub.add("nest/gguf", {"small/birds.gguf": body, "large.gguf": b"GGUF of whales"})
    given = {"repo": "nest/gguf", "file": "small/birds.gguf"}
    for revision in ({}, {"revision": commit}):
        assert job.load("gguf", given | revision)["sha256"] == hashlib.sha256(body).hexdigest()
    assert not hub.seen("nest/gguf", "GET", "large")
    message = refused(job.load("gguf", given | {"file": "birds.gguf"}))
    assert "backbone birds: gguf, revision main: found no file 'birds.gguf'" in message
    assert "no such model" in refused(job.load("gguf", given | {"repo": "nest/nothing"}))
    assert "SHA-256" in refused(job.load("gguf", given | {"sha256": "0" * 64}))
