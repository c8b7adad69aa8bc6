"""The package that pip installs must contain its schemas and catalog, and must read a study outside the checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

import safety_regions
from tests.paths import ROOT

BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "safety_regions")
# Data files that the package contains besides its modules.
DATA = ("*.yaml", "*.jsonl", "*.md", "*.j2")
READ = """
import sys
from pathlib import Path

import yaml

import safety_regions
from safety_regions.report.pages.render import Table, render
from safety_regions.study.catalog import Shelf
from safety_regions.study.config import read_study
from safety_regions.study.method_shelf import method_cards

print(safety_regions.__file__)
print(safety_regions.__version__)
study = read_study(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8")))
print(*study.source_files(study.identification[0]))
print(*Shelf("backbones", {}).names)
print(*Shelf("datasets", {}).names)
print(*sorted(method_cards()))
render("shared_prompts.html.j2", shared=Table([], []), pairs=0)
"""


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return a folder in which pip installed the package's wheel, without its dependencies."""
    folder = tmp_path_factory.mktemp("install")
    source, wheels, target = folder / "source", folder / "wheels", folder / "target"
    source.mkdir()
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source)
    (wheel,) = wheels.glob("*.whl")
    pip("install", "--no-deps", "--target", target, wheel)
    return target


@pytest.mark.slow
def test_every_file_of_the_package_is_installed(installed):
    package = ROOT / "safety_regions"
    expected = {path.relative_to(ROOT) for kind in ("*.py", *DATA) for path in package.rglob(kind)}
    found = {path.relative_to(installed) for path in (installed / "safety_regions").rglob("*")}
    assert expected - found == set() and len(expected) > 150
    everything = {p.suffix for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert everything == {".py", *(kind.removeprefix("*") for kind in DATA)}


@pytest.mark.slow
def test_the_installed_package_reads_a_study_and_finds_its_cards(installed, tmp_path):
    # -S: Python reads no .pth file, so it cannot find an editable install of the checkout.
    reach = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(reach)}
    command = [sys.executable, "-S", "-c", READ, str(ROOT / "config.yaml")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    place, version, prompts, *names = done.stdout.splitlines()
    package = ROOT / "safety_regions"
    assert Path(place).parent == installed / "safety_regions"
    assert version == safety_regions.__version__
    assert Path(prompts).is_relative_to(installed) and Path(prompts).is_file()
    for found, folder in zip(names[:2], ("backbones", "datasets"), strict=True):
        assert found.split() == sorted(path.stem for path in (package / "catalog" / folder).glob("*.yaml"))
    assert {"snip", "wanda", "safeneuron", "safelayer", "nlsr"} <= set(names[2].split())


def test_the_version_is_stated_once_and_the_citation_agrees():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project and project["dynamic"] == ["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert citation["version"] == newest == safety_regions.__version__


@pytest.mark.slow
def test_the_source_distribution_holds_the_whole_workflow(tmp_path):
    """All that a checkout has, but nothing that is made in it."""
    source = tmp_path / "source"
    kept = shutil.ignore_patterns("__pycache__", "*.egg-info")
    named = re.findall(r"^(?:include|graft) (.*)$", (ROOT / "MANIFEST.in").read_text(), re.MULTILINE)
    for name in [*BUILT_FROM, "MANIFEST.in", *(name for line in named for name in line.split())]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name, **({"ignore": kept} if (ROOT / name).is_dir() else {}))
    build = "import sys\nfrom setuptools.build_meta import build_sdist\nprint(build_sdist(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(tmp_path)]
    subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        found = {name.partition("/")[2] for name in file.getnames()}
    copied = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert {path for path in copied - found if ".egg-info/" not in path} == set()
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    stored = {path.name for path in ROOT.iterdir() if not path.name.endswith("-info")} - ignored
    assert stored - {name.partition("/")[0] for name in found} <= {".git", ".gitignore", ".mypy_cache"}


def test_the_container_is_built_from_the_pins_and_gets_what_it_copies():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1].isupper()]
    given = {words[0]: words[1:] for words in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert given["FROM"] == [f"python:{project['requires-python'].removeprefix('>=')}-slim-bookworm"]
    assert all("==" in pin for pin in project["dependencies"]) and given["COPY"] == [".", "."]
    assert ["RUN", "pip", "install", "--no-cache-dir", "--editable", "."] in lines
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert {*BUILT_FROM, "Snakefile", "config.yaml", "workflow", "profiles", "envs"} <= set(kept)
    assert all((ROOT / name).exists() for name in kept)
