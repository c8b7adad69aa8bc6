"""Public CI must run .ci/run, every tool must be pinned, and every folder of the package must have a fast test."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Tools that the Makefile calls, and the package that brings each.
TOOLS = {"python": None, "pip": None, "snakemake": "snakemake", "ruff": "ruff", "snakefmt": "snakefmt",
         "lint-imports": "import-linter", "mkdocs": "mkdocs", "twine": "twine"}  # fmt: skip


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


def test_the_layout_is_the_one_of_the_workflow_catalog():
    """snakedeploy copies config/ and names workflow/Snakefile; both must be the study that the top folder has."""
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert {"software-stack-deployment", "report"} <= usage.keys() and (ROOT / "config/README.md").is_file()
    assert (ROOT / "config/config.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    assert 'include: "../Snakefile"' in (ROOT / "workflow/Snakefile").read_text()
    assert all(word in (ROOT / "README.md").read_text().lower() for word in ("snakemake", "workflow"))


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


# Markers of the tests that make test-fast leaves out.
LEFT_OUT = ("browser", "slow", "slurm", "scale")
PACKAGE_ROOMS = sorted(path.parent.name for path in (ROOT / "safety_regions").glob("*/__init__.py"))
TEST_ROOMS = sorted(
    {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
)


def quick_tests(module: Path) -> list[str]:
    """Return the test functions of a module that make test-fast runs."""

    def marks(node: ast.AST) -> set[str]:
        return {name.attr for name in ast.walk(node) if isinstance(name, ast.Attribute)} & {*LEFT_OUT}

    body = ast.parse(module.read_text()).body
    assigned = [node for node in body if isinstance(node, ast.Assign)]
    if any(marks(node) for node in assigned if ast.unparse(node.targets[0]) == "pytestmark"):
        return []
    tests = [node for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return [test.name for test in tests if not any(map(marks, test.decorator_list))]


@pytest.mark.parametrize("room", sorted({*PACKAGE_ROOMS, *TEST_ROOMS} - {"slurm"}))
def test_every_room_has_a_quick_test(room):
    """Each folder of the package must have a test folder or test module of the same name, with a quick test."""
    modules = [*(ROOT / "tests" / room).rglob("test_*.py"), *(ROOT / "tests").rglob(f"test_{room}.py")]
    assert any(map(quick_tests, modules))


def test_the_fast_run_leaves_out_what_is_marked_and_nothing_else():
    (command,) = re.findall(r"^test-fast:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    options = PROJECT["tool"]["pytest"]["ini_options"]
    left_out = re.findall(r"not (\w+)", command)
    assert f'-m "{" and ".join(f"not {mark}" for mark in left_out)}"' in command
    assert sorted(left_out) == sorted(line.partition(":")[0] for line in options["markers"])
