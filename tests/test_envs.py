"""The conda environments must name the versions that pyproject.toml pins."""

import re
import tomllib

import pytest
import yaml

from tests.paths import ROOT

CONDA_NAMES = {"pytorch": "torch"}


@pytest.mark.parametrize("env", sorted(path.name for path in (ROOT / "envs").glob("*.yaml")))
def test_versions_are_the_pinned_ones(env):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in project["dependencies"])
    for line in yaml.safe_load((ROOT / "envs" / env).read_text())["dependencies"]:
        name, version = re.fullmatch(r"([a-z0-9-]+) =([0-9.]+)", line).groups()
        if name != "python":
            pinned = pins[CONDA_NAMES.get(name, name)]
            assert f"{pinned}.".startswith(f"{version}."), f"{env}: {line}, pinned {pinned}"
