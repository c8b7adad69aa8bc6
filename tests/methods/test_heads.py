"""Heads must equal its slow definition on every family; its evidence can be shuffled and pooled."""

import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.methods import direction, heads
from safety_regions.model.backbone import Backbone
from safety_regions.scoring.memory import Plan
from safety_regions.scoring.samples import Samples
from safety_regions.study.method_shelf import method_cards
from tests.methods.test_direction import AS_THEY_ARE, in_one_template
from tests.methods.test_direction import OPTIONS as OF_NEURONS
from tests.oracles import heads as oracle
from tests.scoring.test_moments import classes
from tests.tiny import FAMILIES, tiny_backbone

OPTIONS = {name: option["default"] for name, option in method_cards()["heads"]["options"].items()}


def run(backbone: Backbone, samples: Samples, **options) -> torch.Tensor:
    """Scores, (layers, heads)."""
    given = OPTIONS | options
    return torch.stack([s for _, s in heads.scores(backbone, heads.gather(backbone, samples, given), given)])


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found.double() - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_their_definition(family):
    """The direction after two of three blocks (0.6 of the depth)."""
    backbone, samples = tiny_backbone(family), classes()
    literal = oracle.along_direction(backbone, samples.identification, samples.contrast, blocks=2)
    assert_close(run(backbone, samples), torch.tensor(literal).mean(dim=2))
    expected = (13 - torch.tensor(oracle.worst_ranks(literal)).float()) / 12
    assert torch.equal(run(backbone, samples, prompts="worst"), expected)
    evidence = heads.gather(backbone, samples, OPTIONS)
    columns = heads.details(backbone, evidence, OPTIONS, "layers.1.heads")
    assert_close(columns["importances"], torch.tensor(literal)[1].sort(dim=1, descending=True).values)


@pytest.mark.parametrize("family", FAMILIES)
def test_contributions_are_their_definition(family):
    backbone, samples, options = tiny_backbone(family), classes(), OPTIONS | {"statistic": "contribution"}
    expected = torch.tensor(
        oracle.contributions(backbone, samples.identification, samples.contrast, blocks=2)
    )
    assert_close(run(backbone, samples, statistic="contribution"), expected.abs())
    evidence = heads.gather(backbone, samples, options)
    signed = [
        heads.details(backbone, evidence, options, f"layers.{i}.heads")["contribution"] for i in range(3)
    ]
    assert_close(torch.stack(signed), expected)
    assert (expected < 0).any() and (expected > 0).any()


@pytest.mark.parametrize("family", AS_THEY_ARE)
def test_contributions_of_heads_and_neurons_sum_up_to_the_length_of_the_direction(family):
    """With one final token; the heads of a layer add what its rows of v do in `direction`."""
    backbone, samples, options = (
        tiny_backbone(family),
        in_one_template(classes()),
        OPTIONS | {"statistic": "contribution"},
    )
    evidence, others = (
        heads.gather(backbone, samples, options),
        direction.gather(backbone, samples, OF_NEURONS),
    )
    total = 0.0
    for layer in range(2):
        of_heads = heads.details(backbone, evidence, options, f"layers.{layer}.heads")["contribution"].sum()
        of_v, of_down = (
            direction.details(backbone, others, OF_NEURONS, f"layers.{layer}.{p}")["contribution"].sum()
            for p in ("v", "down")
        )
        assert of_heads == pytest.approx(float(of_v), rel=1e-3, abs=1e-6)
        total += float(of_heads + of_down) * getattr(backbone.config, "residual_multiplier", 1.0)
    assert total == pytest.approx(heads.findings(backbone, evidence, options)["norm"], rel=1e-4)


def test_the_depth_chooses_the_block():
    backbone, samples = tiny_backbone("qwen3"), classes()
    for depth, blocks in ((0.1, 1), (1, 3)):
        literal = oracle.along_direction(backbone, samples.identification, samples.contrast, blocks)
        assert_close(run(backbone, samples, depth=depth), torch.tensor(literal).mean(dim=2))
    found = heads.findings(backbone, heads.gather(backbone, samples, OPTIONS), OPTIONS)
    r = oracle.direction(backbone, samples.identification, samples.contrast, 2)
    assert found["blocks_before"] == 2 and found["norm"] == pytest.approx(
        torch.tensor(r).norm().item(), rel=1e-4
    )


def test_memory_for_a_single_block_changes_nothing(monkeypatch):
    """States come from the pass that covers the block."""
    backbone, samples, widths = tiny_backbone("llama3"), classes(), []
    plain, start = run(backbone, samples), heads.Outputs.__init__

    def counted(self, linears, *others):
        widths.append(len({linear.layer for linear in linears}))
        start(self, linears, *others)

    monkeypatch.setattr(heads.Outputs, "__init__", counted)
    monkeypatch.setattr(
        "safety_regions.scoring.passes.plan_passes",
        lambda needs, free, size: Plan(size, (range(1), range(1, 2), range(2, 3))),
    )
    assert torch.equal(run(backbone, samples), plain) and widths == [1, 1, 1]


def test_a_shuffle_moves_the_importances_of_whole_heads_within_their_layer():
    backbone, samples = tiny_backbone("mistral"), classes()
    evidence = heads.gather(backbone, samples, OPTIONS)
    plain, moved = (
        [heads.details(backbone, some, OPTIONS, f"layers.{i}.heads")["importances"] for i in range(3)]
        for some in (evidence, heads.shuffle(evidence, 1))
    )
    for before, after in zip(plain, moved, strict=True):
        rows = sorted(before.tolist())
        assert sorted(after.tolist()) == rows
    assert any(not torch.equal(*pair) for pair in zip(plain, moved, strict=True))


def test_shuffled_groups_are_pooled_with_the_direction_of_both():
    backbone, samples = tiny_backbone("llama"), classes()
    first, second = samples.identification[:2], samples.identification[2:]
    whole = heads.gather(backbone, samples, OPTIONS)
    parts = [
        heads.gather(backbone, samples._replace(identification=some), OPTIONS) for some in (first, second)
    ]
    moved = heads.merge(*(heads.shuffle(part, 7) for part in parts), (first, second), OPTIONS)
    expected = torch.stack([s for _, s in heads.scores(backbone, heads.shuffle(whole, 7), OPTIONS)])
    found = torch.stack([s for _, s in heads.scores(backbone, moved, OPTIONS)])
    torch.testing.assert_close(found, expected)


def test_ordinary_prompts_are_needed():
    backbone, samples = tiny_backbone("llama"), classes()
    with pytest.raises(StudyError, match="found 1 ordinary prompts; expected 2 or more"):
        run(backbone, samples._replace(contrast=samples.contrast[:1]))
