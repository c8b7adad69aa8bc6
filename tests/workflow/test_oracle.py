"""The workflow reproduces the numbers of the original authors' code.

The folder ``tests/oracles/llama`` holds a three-layer Llama, a safety and a utility set of ten pairs of prompt and
response each, and the scores and regions that boyiwei/alignment-attribution-code @0b0e707 computes on them.
"""

import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from safety_regions.formats.contracts import WEIGHT_SCORES
from safety_regions.formats.parquet import read_table
from safety_regions.formats.region import read_region
from tests.paths import ORACLES
from tests.workflow.conftest import make_project

pytestmark = pytest.mark.slow

ORACLE = ORACLES / "llama"


def card(name: str, role: str) -> dict:
    source = {
        "path": f"{name}.jsonl",
        "format": "jsonl",
        "columns": {"prompt": "prompt", "response": "response"},
    }
    return {"role": role, "title": name, "licence": "none", "file": source}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("oracle") / "project")
    project.config = {
        "data_dir": str(ORACLE),
        "backbones": ["oracle"],
        "datasets": {"identification": ["safety"], "utility": ["utility"]},
        "methods": {name: {"selections": ["row-0.1", "matrix-0.05"]} for name in ("snip", "wanda")},
        "samples": {"identify": 10, "candidates": 10, "evaluate": 0, "evaluate_fraction": 0},
        "responses": {"origin": "dataset", "keep_identification": "all", "keep_utility": "all"},
        "kept": {"row": 1.0, "matrix": 0.05},
        "cards": {
            "backbones": {
                "oracle": {
                    "kind": "checkpoint",
                    "family": "llama",
                    "path": str(ORACLE / "model"),
                    "template": "raw",
                }
            },
            "datasets": {
                "safety": card("safety", "identification"),
                "utility": card("utility", "utility"),
            },
        },
    }
    regions = [
        f"results/regions/oracle/{method}/safety/{region}.safetensors"
        for method in ("snip", "wanda")
        for region in ("row-0.1/raw", "matrix-0.05/minus-utility")
    ]
    project.run(*regions)
    return project.folder / "results"


def address(name: str) -> str:
    layer, projection = re.search(r"layers\.(\d+)\..*\.(\w+)_proj", name).groups()
    return f"layers.{layer}.{projection}"


@pytest.mark.parametrize("method", ["snip", "wanda"])
@pytest.mark.parametrize("name", ["safety", "utility"])
def test_scores_agree(results, method, name):
    table = read_table(results / f"scores/oracle/{method}/{name}.parquet", WEIGHT_SCORES).to_pandas()
    groups = dict(list(table.groupby(["layer", "projection"], observed=True)))
    expected = load_file(ORACLE / f"{method}.{name}.scores.safetensors")
    assert len(groups) == len(expected) == 21
    for key, scores in expected.items():
        _, layer, projection = address(key).split(".")
        rows = groups[int(layer), projection]
        found = np.zeros_like(scores)
        found[rows["row"], rows["column"]] = rows["score"]
        np.testing.assert_allclose(found, scores, rtol=1e-5, atol=0, err_msg=key)


@pytest.mark.parametrize("method", ["snip", "wanda"])
@pytest.mark.parametrize(
    "region,reference",
    [("row-0.1/raw", "row10pct_raw"), ("matrix-0.05/minus-utility", "matrix5pct_difference")],
)
def test_regions_are_the_same_bit_for_bit(results, method, region, reference):
    found = read_region(results / f"regions/oracle/{method}/safety/{region}.safetensors")
    expected = load_file(ORACLE / f"{method}.{reference}.safetensors")
    assert len(found.masks) == len(expected) == 21
    for key, mask in expected.items():
        assert np.array_equal(found.masks[address(key)], np.packbits(mask)), key
