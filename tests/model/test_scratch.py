"""Tensors in files are the tensors, a parked model is the model, and a full disk is reported."""

import io
import tempfile
from pathlib import Path

import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.model.scratch import Rows, in_file, park
from tests.tiny import FAMILIES, tiny_backbone

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])


@DTYPES
def test_a_tensor_in_a_file_is_the_tensor(dtype, tmp_path):
    values = torch.randn(7, 5).to(dtype).T
    kept = in_file(values, tmp_path)
    assert torch.equal(kept, values) and kept.dtype == dtype and list(tmp_path.iterdir()) == []
    assert kept.untyped_storage().filename
    kept.mul_(2)
    assert torch.equal(kept, values * 2)


@DTYPES
def test_rows_are_added_in_their_order(dtype, tmp_path):
    values = torch.randn(9, 5).to(dtype)
    rows = Rows(tmp_path)
    for part in values.split([2, 1, 6]):
        rows.add(part)
    assert torch.equal(rows.mapped(), values) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_parked_model_is_the_model(family, tied, tmp_path):
    backbone = tiny_backbone(family, tie_word_embeddings=tied)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        expected = backbone.model(ids).logits
        park(backbone.model, tmp_path)
        assert torch.equal(backbone.model(ids).logits, expected)
    assert all(parameter.untyped_storage().filename for parameter in backbone.model.parameters())
    embedding, head = backbone.model.get_input_embeddings(), backbone.model.get_output_embeddings()
    assert (embedding.weight is head.weight) == tied


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("n", [1, 100_000])
def test_a_full_disk_is_reported(n, monkeypatch):
    """Also if the last bytes are written only when the file is closed."""
    monkeypatch.setattr(
        tempfile, "NamedTemporaryFile", lambda **_: io.BufferedWriter(io.FileIO("/dev/full", "wb"))
    )
    with pytest.raises(StudyError, match=r"no space left on the disk.*Try: free some space"):
        in_file(torch.ones(n), None)
