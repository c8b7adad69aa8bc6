"""SHIPS must equal its slow definition on every family; a head that writes nothing has no score."""

import numpy as np
import pytest
import torch

from safety_regions.behaviour.edit import edited
from safety_regions.behaviour.operations import load_operation
from safety_regions.errors import StudyError
from safety_regions.formats.expand import expand_region
from safety_regions.formats.region import Region
from safety_regions.methods import ships
from safety_regions.model.backbone import Backbone
from safety_regions.scoring.samples import Samples
from safety_regions.study.method_shelf import method_cards
from tests.oracles import heads as oracle
from tests.scoring.test_moments import samples_of
from tests.tiny import FAMILIES, tiny_backbone

OPTIONS = {name: option["default"] for name, option in method_cards()["ships"]["options"].items()}
KINDS = ("uniform", "output")
LENGTHS = ((15, 3), (4, 2), (9, 1))
"""Prompt and response tokens; two prompts exceed the sliding window of 7."""


def sharp(family: str) -> Backbone:
    """A tiny model in float64 whose heads attend to few tokens; those of the usual one are almost uniform."""
    backbone = tiny_backbone(family, dtype=torch.float64)
    with torch.no_grad():
        for where, weight in backbone.weights():
            if where.endswith((".q", ".k")):
                weight *= 5
    return backbone


def gather(backbone: Backbone, samples, **options) -> dict[str, torch.Tensor]:
    return ships.gather(backbone, Samples(samples, batch_size=2), OPTIONS | options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_divergences_are_their_definition(family, kind):
    backbone, samples = sharp(family), samples_of(LENGTHS)
    literal = torch.tensor(oracle.ships(backbone, samples, kind), dtype=torch.float64)
    evidence = gather(backbone, samples, kind=kind)
    assert list(evidence) == [f"layers.{i}.heads" for i in range(3)]
    order = [0, 2, 1]  # prompts pass longest first
    found = torch.stack(list(evidence.values()))
    error = (found - literal.transpose(1, 2)[:, order]).abs().max()
    assert error < 1e-5 * literal.max(), f"{error:.1e} of {literal.max():.1e}"
    assert literal.min() > 0
    scores = torch.stack([values for _, values in ships.scores(backbone, evidence, OPTIONS)])
    torch.testing.assert_close(scores, literal.mean(2).float(), rtol=1e-4, atol=1e-12)
    worst = torch.stack([v for _, v in ships.scores(backbone, evidence, OPTIONS | {"prompts": "worst"})])
    assert torch.equal(worst, (13 - torch.tensor(oracle.worst_ranks(literal.tolist())).float()) / 12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3", "phi3"])
def test_a_head_that_writes_nothing_has_no_score(family, kind):
    backbone = tiny_backbone(family)
    width, weights = backbone.head_dim, dict(backbone.weights())
    with torch.no_grad():
        weights["layers.1.o"][:, 2 * width : 3 * width] = 0
    found = gather(backbone, samples_of(LENGTHS), kind=kind)["layers.1.heads"]
    assert not found[:, 2].any() and (found[:, [0, 1, 3]] > 0).all()


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi3"])
def test_removing_a_head_is_setting_its_weights_to_zero(family):
    """Also with grouped queries, where k and v of the group stay, and with fused weights."""
    backbone, (sample,) = sharp(family), samples_of(LENGTHS[:1])
    found = gather(backbone, [sample], kind="output")["layers.1.heads"][0]
    flags = {f"layers.{i}.heads": np.zeros(4, bool) for i in range(3)}
    flags["layers.1.heads"][2] = True
    region = Region.pack(flags, {"granularity": "head", "scope": "global", "fraction": 0.1})

    def next_token() -> torch.Tensor:
        with torch.no_grad():
            logits = backbone.model(input_ids=torch.tensor([sample.ids[: sample.prompt_length]])).logits
        return logits[0, -1].log_softmax(0)

    whole = next_token()
    with edited(backbone, load_operation("zero"), 1.0, expand_region(region, backbone.shapes)):
        without = next_token()
    divergence = (whole.exp() * (whole - without)).sum()
    torch.testing.assert_close(found[2], divergence, rtol=1e-5, atol=0)


def test_a_logit_that_is_not_finite_is_an_error():
    backbone = tiny_backbone("llama")
    with torch.no_grad():
        backbone.model.get_output_embeddings().weight[5] = torch.inf
    with pytest.raises(StudyError, match="next-token logits: found values that are not finite for p0"):
        gather(backbone, samples_of(LENGTHS))
