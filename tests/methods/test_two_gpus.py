"""Every method and generation must give the same results on two (simulated) GPUs as on one device."""

import pytest
import torch

from safety_regions.model.generate import answer_prompts
from safety_regions.scoring import passes
from tests.methods.test_conformance import (
    CASES,
    RANK,
    assert_same,
    based_backbone,
    every_method,
    gather,
    read,
)
from tests.tiny import FAMILIES
from tests.training.adapters import write_adapter
from tests.two_gpus import GPUS, spread

pytestmark = pytest.mark.slow

UNTIED = pytest.mark.parametrize("family", FAMILIES)


def whole(family: str):
    return based_backbone(family, tie_word_embeddings=False)


@pytest.fixture
def room(monkeypatch):
    """Report enough free memory for all layers on the simulated GPUs."""
    monkeypatch.setattr(passes, "free_bytes", lambda *_: 1 << 40)


@every_method
@UNTIED
def test_a_method_finds_the_same_over_two_gpus(label, family, tmp_path, room):
    backbone = whole(family)
    adapter = write_adapter(backbone, tmp_path, RANK)
    expected = read(label, backbone, gather(label, backbone, adapter))
    with spread(backbone):
        found = read(label, backbone, gather(label, backbone, adapter))
    assert_same({where: values.cpu() for where, values in found.items()}, expected)


@UNTIED
def test_answers_are_the_same_over_two_gpus(family):
    backbone, prompts = whole(family), ["one", "two words", "three words here"]
    expected = answer_prompts(backbone, prompts, max_new_tokens=5, batch_size=2)
    with spread(backbone):
        assert answer_prompts(backbone, prompts, max_new_tokens=5, batch_size=2) == expected


def test_the_pretence_notices_what_lies_apart():
    with spread(whole("llama")) as devices:
        near, far = (torch.ones(2, device=gpu) for gpu in GPUS)
        assert (near.device, far.device, (far * 2).device, near.to(GPUS[1]).device) == (*GPUS, *[GPUS[1]] * 2)
        with pytest.raises(RuntimeError, match="meet"):
            near + far
        with pytest.raises(RuntimeError, match="meet"):
            far[near > 0]
        assert len(devices.where) > 10 and len(CASES) > 5
