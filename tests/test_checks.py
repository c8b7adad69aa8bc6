"""What the checks check: public CI runs what .ci/run runs, every tool is pinned, every room has a fast test."""

import re
import tomllib

import yaml

from tests.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Tools that the Makefile calls, and the package that brings each.
TOOLS = {"python": None, "pip": None, "snakemake": "snakemake", "ruff": "ruff", "snakefmt": "snakefmt",
         "lint-imports": "import-linter", "mkdocs": "mkdocs"}  # fmt: skip


def test_public_ci_runs_the_local_one_on_the_oldest_python():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML reads the key `on` as true
    (job,) = workflow["jobs"].values()
    assert job["env"]["PIP_EXTRA_INDEX_URL"] == "https://download.pytorch.org/whl/cpu"
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    (python,) = [
        step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")
    ]
    assert PROJECT["project"]["requires-python"] == f">={python}"


def test_ci_runs_targets_that_the_makefile_has():
    asked = re.findall(r"^make ([\w-]+)$", (ROOT / ".ci/run").read_text(), flags=re.MULTILINE)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert asked == ["lint", "test", "study", "report"] and set(asked) <= set(targets)


def test_every_tool_of_the_makefile_is_pinned():
    called = set(re.findall(r"\$\(BIN\)/([\w-]+)", (ROOT / "Makefile").read_text()))
    assert called == set(TOOLS)
    extras = PROJECT["project"]["optional-dependencies"]
    required = [line for lines in (PROJECT["project"]["dependencies"], *extras.values()) for line in lines]
    pins = dict(line.split("==") for line in required)
    assert {package for package in TOOLS.values() if package} <= pins.keys()
    assert PROJECT["build-system"]["requires"] == [f"setuptools=={pins['setuptools']}"]


def test_every_room_of_the_package_is_a_layer():
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name for layer in layers for name in re.split(r"\s*[:|]\s*", layer)}
    package = ROOT / "safety_regions"
    modules = {path.parent.name for path in package.glob("*/__init__.py")}
    modules |= {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert named == modules
