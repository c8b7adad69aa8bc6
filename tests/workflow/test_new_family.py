"""With one new file in families/, a study of a checkpoint of a new family runs from end to end."""

import pytest

from safety_regions.families import family_of
from safety_regions.formats.contracts import IOU
from safety_regions.formats.parquet import read_metadata, read_table
from tests.tiny import byte_tokenizer, tiny_model
from tests.workflow.conftest import make_project

pytestmark = pytest.mark.slow

MODEL_TYPE = "seed_oss"  # in transformers, but in no family of this project
FILE = f'''"""Seed-OSS: Llama's names; biases on q, k and v."""

from safety_regions.families import Family

FAMILY = Family(name="newcomer", layers={{"{MODEL_TYPE}": "model.layers"}})
'''
CARD = "kind: checkpoint\ntitle: Newcomer\npath: newcomer\nfamily: newcomer\n"


def test_one_file_is_a_family(tmp_path):
    assert family_of(MODEL_TYPE) is None
    project = make_project(tmp_path / "project")
    package = project.folder / "safety_regions"
    project.config |= {"backbones": ["newcomer"]}
    tiny_model("llama", model_type=MODEL_TYPE).save_pretrained(project.folder / "newcomer")
    byte_tokenizer().save_pretrained(project.folder / "newcomer")
    (package / "catalog" / "backbones" / "newcomer.yaml").write_text(CARD)

    said = project.snakemake("--dry-run", check=False)
    assert said.returncode != 0 and '"newcomer"' in said.stdout + said.stderr  # no such family yet

    (package / "families" / "newcomer.py").write_text(FILE)
    project.run("results/overlap/iou.parquet")
    iou = read_table(project.folder / "results/overlap/iou.parquet", IOU).to_pandas()
    assert set(iou["backbone"]) == {"newcomer"} and set(iou["method"]) == {"snip", "wanda"}
    raw = iou[iou["refinement"] == "raw"]  # a refined region may be empty in a projection
    assert len(raw) and raw["iou"].between(0, 1).all() and (raw["union"] > 0).all()
    metadata = read_metadata(project.folder / "results/scores/newcomer/wanda/one.parquet")
    assert metadata["shapes"]["layers.2.down"] == [32, 48] and len(metadata["shapes"]) == 21
