"""One fake Hub and a few processes that load from it, shared by the tests of this room."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.model.hub.fake_hub import serving
from tests.tiny import byte_tokenizer, tiny_model

TOKEN = "hf_" + "NotARealToken" * 2
ROOT = Path(__file__).parents[3]


class Job:
    """A process of `tests.model.hub.loading_process`; ``load`` sends it a card and waits for what came of it."""

    def __init__(self, hub_url: str, home: Path, log: Path, **variables: str):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
        environment |= {
            "HF_ENDPOINT": hub_url,
            "HF_HOME": str(home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "no_proxy": "*",
            **variables,
        }
        self.log = log
        with open(log, "w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.model.hub.loading_process"],
                cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip

    def send(self, what: str, card: dict) -> None:
        print(json.dumps({"what": what, "card": card}), file=self.process.stdin, flush=True)

    def receive(self) -> dict:
        line = self.process.stdout.readline()
        assert line, f"the job has died; its log: {self.log}"
        return json.loads(line)

    def load(self, what: str, card: dict) -> dict:
        self.send(what, card)
        return self.receive()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture(scope="session")
def hub():
    with serving() as hub:
        yield hub


@pytest.fixture(scope="session")
def jobs(hub, tmp_path_factory):
    """Start a job; all of them share one cache. At the end no log may show the token that they sent."""
    home, logs, started = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("logs"), []

    def start(**variables: str) -> Job:
        started.append(Job(hub.url, home, logs / f"{len(started)}.log", **variables))
        return started[-1]

    yield start
    for job in started:
        job.close()
    assert any(request.token == f"Bearer {TOKEN}" for request in hub.requests), "the token was sent"
    assert all(request.token is None for request in hub.requests if request.path.startswith("/cdn/"))
    for job in started:
        assert TOKEN not in job.log.read_text(), "the token was logged"


@pytest.fixture(scope="session")
def job(jobs):
    return jobs()


@pytest.fixture(scope="session")
def other_job(jobs):
    return jobs()


@pytest.fixture(scope="session")
def offline_job(jobs):
    return jobs(HF_HUB_OFFLINE="1")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> dict[str, bytes]:
    """The files of a tiny Llama."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model("llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def sharded(tmp_path_factory, checkpoint) -> dict[str, bytes]:
    """The same weights in parts."""
    folder = tmp_path_factory.mktemp("sharded")
    tiny_model("llama").save_pretrained(folder, max_shard_size="40KB")
    parts = {path.name: path.read_bytes() for path in folder.glob("model*")}
    assert len(parts) > 2 and load_file(folder / sorted(parts)[0])
    return {**{name: body for name, body in checkpoint.items() if name != "model.safetensors"}, **parts}


def refused(answer: dict) -> str:
    """The message of an answer that must be a `StudyError`: one line, without the token, with a way out."""
    assert answer.get("error") == "StudyError", answer
    message = answer["message"]
    assert "\n" not in message and TOKEN not in message and "Try: " in message
    return message
