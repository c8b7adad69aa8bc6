"""Scripts that run in the environment without torch import neither torch nor a package that needs it."""

import ast
import json
import re
import subprocess
import sys

import pytest

from tests.paths import ROOT
from tests.scripts.loading import FOLDER, SCRIPTS

RULE = re.compile(r"^( *)(?:rule|checkpoint) (\w+):\n((?:\1 +.*\n|\n)+)", flags=re.MULTILINE)
ABSENT = ("torch", "transformers", "peft", "tokenizers", "accelerate")
"""Packages that models need; envs/analysis.yaml must list none of them."""

IMPORT_ALL = """
import json, sys

import pytest
absent, asked = json.load(sys.stdin)
sys.modules.update(dict.fromkeys(absent))
failed = {}
for script, imports in asked.items():
    try:
        exec(imports, {})
    except ImportError as error:
        failed[script] = str(error)
print(json.dumps(failed))
"""
TEXT = {"capture_output": True, "text": True, "check": True}


def scripts_in(env: str) -> list[str]:
    """Return the scripts whose rules name this environment."""
    found = set()
    for file in (ROOT / "workflow" / "rules").glob("*.smk"):
        for _, _, body in RULE.findall(file.read_text() + "\n"):
            if f'"../../envs/{env}.yaml"' in body:
                found.update(re.findall(r'"\.\./scripts/(\w+)\.py"', body))
    return sorted(found)


def imports_of(script: str) -> list[str]:
    """Return every import of a script, including those inside its function."""
    nodes = ast.walk(ast.parse((FOLDER / f"{script}.py").read_text()))
    return [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def test_every_script_has_one_environment():
    assert sorted([*scripts_in("analysis"), *scripts_in("model")]) == SCRIPTS


def test_the_environments_are_as_far_apart_as_they_say():
    analysis = (ROOT / "envs" / "analysis.yaml").read_text()
    assert not [name for name in (*ABSENT, "pytorch") if re.search(rf"^\W*{name}\b", analysis, flags=re.M)]


@pytest.mark.slow
def test_what_runs_without_torch_imports_none():
    """In one process without torch, the imports of every script succeed; the process prints those that fail."""
    asked = {script: "\n".join(imports_of(script)) for script in scripts_in("analysis")}
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], input=json.dumps([ABSENT, asked]), **TEXT)
    assert len(asked) > 20 and json.loads(done.stdout) == {}, done.stdout
