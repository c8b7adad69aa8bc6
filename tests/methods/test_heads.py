"""Heads must equal its slow definition on every family; its evidence can be shuffled and pooled."""

import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.methods import heads
from safety_regions.model.backbone import Backbone
from safety_regions.scoring.memory import Plan
from safety_regions.scoring.samples import Samples
from safety_regions.study.method_shelf import method_cards
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
