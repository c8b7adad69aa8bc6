"""The profiles and the rules must agree: every rule has resources or a group, and none retries by itself."""

import re

import pytest
import yaml

from safety_regions.study.resources import MINUTES
from tests.paths import ROOT

RULES = {path.name: path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk")}
PROFILES = {
    name: yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
    for name in ("default", "slurm")
}


def test_every_rule_asks_for_its_own_resources_or_shares_a_submission():
    text = "\n".join(RULES.values())
    rules = set(re.findall(r"^rule (\w+):", text, flags=re.MULTILINE))
    derived = re.findall(r"^ *use rule (\w+) as (\w+) with:", text, flags=re.MULTILINE)
    # A rule derived from one with resources of its own has them too, or other ones.
    rules |= {name for base, name in derived if base not in MINUTES or name in MINUTES}
    assert rules == MINUTES.keys() | PROFILES["slurm"]["groups"].keys()
    assert not MINUTES.keys() & PROFILES["slurm"]["groups"].keys()


def test_groups_and_their_components_are_the_same():
    assert set(PROFILES["slurm"]["groups"].values()) == PROFILES["slurm"]["group-components"].keys()


@pytest.mark.parametrize("name", sorted(RULES))
def test_no_rule_retries(name):
    """No rule may set ``retries``: the executor would repeat it inside its job too, with the same resources."""
    assert not re.search(r"^\s+retries:", RULES[name], flags=re.MULTILINE)


def test_what_is_left_of_default_stands_in_slurm_too():
    """The slurm profile must repeat the default profile's options, because a workflow profile replaces all of it."""
    default, slurm = PROFILES["default"], PROFILES["slurm"]
    assert {key: slurm[key] for key in default if key != "resources"} == {
        key: value for key, value in default.items() if key != "resources"
    }
    assert "slurm-array-jobs" not in slurm and slurm["retries"] > 0
