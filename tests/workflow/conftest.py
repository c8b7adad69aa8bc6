"""Tests get a copy of the project in a temporary folder, with a tiny study that runs in seconds."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from safety_regions.units.names import parse_name
from tests.paths import ROOT
from tests.tiny import byte_tokenizer, tiny_model

PARTS = ("Snakefile", "config.yaml", "workflow", "safety_regions", "profiles", "envs")
SCIENCE = ("scores/**/*.parquet", "regions/**/*.safetensors", "overlap/**/*.parquet", "overlap/**/*.tsv")
VERBS = ("bake", "read", "paint", "mend", "plant", "sell", "carry", "open")
THINGS = ("bread", "a book", "the fence", "a shirt", "beans", "a chair")


class Project:
    """A copy of the project in which tests let Snakemake plan or run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def config(self) -> dict:
        return yaml.safe_load((self.folder / "config.yaml").read_text())

    @config.setter
    def config(self, config: dict) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def start(self, *arguments: str, said: int = subprocess.PIPE, **environment: str) -> subprocess.Popen:
        """Start a run in a session of its own and return its process; all output goes to ``said``.

        It can be interrupted, even if the tests themselves ignore interrupts because they run in the background.
        """
        command = [sys.executable, "-m", "snakemake", "--nocolor", *arguments]
        streams = {"stdout": said, "stderr": subprocess.STDOUT, "text": True}
        env = self.environment | environment
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a handler is not inherited
        try:
            return subprocess.Popen(command, cwd=self.folder, env=env, start_new_session=True, **streams)
        finally:
            signal.signal(signal.SIGINT, before)

    def contents(self, kinds: tuple[str, ...] = SCIENCE) -> dict[Path, bytes]:
        """Return path under results -> bytes, for every file of these kinds."""
        results = self.folder / "results"
        return {path.relative_to(results): path.read_bytes() for kind in kinds for path in results.glob(kind)}

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "--nocolor", *arguments]
        ran = {"capture_output": True, "text": True, "timeout": 1800}
        done = subprocess.run(command, cwd=self.folder, env=self.environment, **ran)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def run(self, *targets: str) -> subprocess.CompletedProcess:
        return self.snakemake(*targets, "--cores", "2")

    def plan(self, *arguments: str) -> dict[str, int]:
        """Return rule -> number of jobs that Snakemake would run."""
        said = self.snakemake(*arguments, "--dry-run", "--quiet", "rules").stdout
        block = said.partition("Job stats:")[2].partition("\n\n")[0]
        jobs = dict(re.findall(r"^(\w+)\s+(\d+)$", block, flags=re.MULTILINE))
        return {rule: int(count) for rule, count in jobs.items() if rule not in ("total", "all")}

    def planned_outputs(self) -> set[str]:
        """Return the files that Snakemake would write."""
        rows = [line.split("\t") for line in self.snakemake("--summary").stdout.splitlines() if "\t" in line]
        planned = {row[0] for row in rows[1:] if row[-1] != "no update"}
        assert rows[0][0] == "output_file" and rows[0][-1] == "plan", rows[0]
        return planned

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new))

    def move(self, old: str, new: str) -> None:
        """Move a module of the package, and change its name wherever the package imports it."""
        (self.folder / old).rename(self.folder / new)
        was, now = (path.removesuffix(".py").replace("/", ".") for path in (old, new))
        for file in (self.folder / "safety_regions").rglob("*.py"):
            file.write_text(re.sub(rf"\b{re.escape(was)}\b", now, file.read_text()))

    def prompts(self, name: str, seed: int, n: int = 24) -> None:
        rows = [
            {
                "id": f"{i:02d}",
                "text": f"Please {VERBS[(i * seed) % 8]} {THINGS[(i + seed) % 6]} {i}",
                "category": "c",
            }
            for i in range(n)
        ]
        path = self.folder / "safety_regions" / "catalog" / "prompts" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def log_of(done: subprocess.CompletedProcess) -> str:
    """Snakemake's own log of a run, whose terminal shows a line per finished step only."""
    (log,) = set(re.findall(r"Complete log\(s\): (\S+)", done.stderr))
    return Path(log).read_text()


def region_file(project: Project, path: str) -> Path:
    """The file of a region, ``backbone/method/name/selection/refinement``: its own, or one in its dataset's frame."""
    backbone, method, name, selection, refinement = path.split("/")
    results, dataset = project.folder / "results/regions", parse_name(name).datasets[0]
    own = results / f"{path}.safetensors"
    frame = results / backbone / method / dataset / selection / f"{refinement}.frame"
    return own if own.exists() else frame / f"{name}.safetensors"


def card(name: str, role: str) -> dict:
    return {"role": role, "title": name, "licence": "none stated", "embedded": {"path": f"{name}.jsonl"}}


def study() -> dict:
    """Return the config: two identification sets, one utility set, one tiny random backbone, two methods."""
    roles = {"one": "identification", "two": "identification", "three": "identification", "plain": "utility"}
    backbone = {"kind": "checkpoint", "family": "llama", "path": "tiny"}
    return {
        "backbones": ["tiny"],
        "datasets": {"identification": ["one", "two"], "utility": ["plain"]},
        "methods": {"snip": {}, "wanda": {}},
        "samples": {"identify": 9, "candidates": 10, "evaluate": 2},
        "responses": {"max_new_tokens": 6, "keep_identification": "all", "keep_utility": "all"},
        "cards": {
            "backbones": {"tiny": backbone},
            "datasets": {name: card(name, role) for name, role in roles.items()},
        },
    }


def make_project(folder: Path) -> Project:
    folder.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        ignore = shutil.ignore_patterns("__pycache__")
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / part, **({"ignore": ignore} if source.is_dir() else {}))
    project = Project(folder)
    for seed, name in enumerate(("one", "two", "three", "plain"), start=1):
        project.prompts(name, seed)
    tiny_model("llama").save_pretrained(folder / "tiny")
    byte_tokenizer().save_pretrained(folder / "tiny")
    project.config = study()
    return project


@pytest.fixture(scope="session")
def unrun(tmp_path_factory) -> Project:
    """Return the tiny study before its first run, for tests that only plan; they must not change it."""
    return make_project(tmp_path_factory.mktemp("unrun") / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """Run the tiny study once and return it; tests must not change it (see `project`)."""
    project = make_project(tmp_path_factory.mktemp("finished") / "project")
    project.run()
    return project


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """Return a fresh copy of the finished study, with its time stamps, which a test may change."""
    copy = tmp_path / "project"
    shutil.copytree(finished.folder, copy, copy_function=shutil.copy2)
    return Project(copy)
