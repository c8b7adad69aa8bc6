"""Effect sizes and shifts must equal their slow definition on every family."""

import math

import pytest
import torch

from safety_regions.methods.effectsize import method as effectsize
from safety_regions.methods.effectsize.selection import select
from safety_regions.model.backbone import Backbone
from safety_regions.scoring.moments import TOKENS
from safety_regions.scoring.samples import Samples
from safety_regions.study.method_shelf import method_cards
from tests.oracles import contrasts as oracle
from tests.regions.small_regions import units, write_scores
from tests.scoring.test_moments import classes
from tests.tiny import FAMILIES, tiny_backbone

OPTIONS = {name: option["default"] for name, option in method_cards()["effectsize"]["options"].items()}
LOW = {"effect_threshold": 1.1, "shift_threshold": 0.9}
"""Thresholds that neurons of random nets reach."""


def run(backbone: Backbone, samples: Samples, **options) -> dict[str, torch.Tensor]:
    given = OPTIONS | options
    return dict(effectsize.scores(backbone, effectsize.gather(backbone, samples, given), given))


def moments_of(harmful: torch.Tensor, ordinary: torch.Tensor) -> torch.Tensor:
    """Class moments of numbers, (prompts, neurons) each."""
    return torch.stack(
        [
            torch.stack([torch.full_like(x[0], len(x)), x.sum(0), x.square().sum(0)])
            for x in (harmful, ordinary)
        ]
    )


def draw(n: int, neurons: int, seed: int) -> torch.Tensor:
    return torch.randn(n, neurons, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_and_regions_are_their_definition(family, tokens, tmp_path):
    backbone, samples = tiny_backbone(family), classes()
    literal = oracle.effects_and_shifts(backbone, samples.identification, samples.contrast, tokens)
    evidence = effectsize.gather(backbone, samples, OPTIONS | {"tokens": tokens})
    for layer in range(3):
        columns = effectsize.details(backbone, evidence, OPTIONS, f"layers.{layer}.up")
        for (name, values), expected in zip(columns.items(), literal, strict=True):
            wanted = torch.tensor(expected[layer], dtype=torch.float64)
            error = (values - wanted).abs().max() / wanted.abs().max()
            assert error < 2e-5, f"{name} of layer {layer}: {error:.1e}"
    of_effect, of_shift = oracle.region(literal, *LOW.values())
    assert of_effect - of_shift and of_shift - of_effect and len(of_effect | of_shift) < 100
    regions = {"effect": of_effect, "shift": of_shift, "union": of_effect | of_shift}
    for statistic, expected in regions.items():
        scored = run(backbone, samples, tokens=tokens, statistic=statistic, **LOW)
        arrays = {where: values.numpy() for where, values in scored.items()}
        path = write_scores(tmp_path / statistic, "neuron", arrays, {"matrix": 1.0})
        found = units(select(path, "score-1", None, False))
        sides = {(f"layers.{i}.{side}", k) for i, k in expected for side in ("up", "down")}
        assert found == sides, statistic


def test_the_union_scores_the_larger_statistic():
    backbone, samples = tiny_backbone("gemma3"), classes()
    effect, shift, union = (run(backbone, samples, statistic=s, **LOW) for s in ("effect", "shift", "union"))
    for where, values in union.items():
        fires_more = effect[where] > 0
        both = torch.maximum(effect[where], shift[where])
        assert torch.equal(values, torch.where(fires_more, both, effect[where]))
        assert (shift[where][~fires_more] <= 0).all() and fires_more.any() and not fires_more.all()


@pytest.mark.parametrize("n, expected", [(20, 0.321), (100, 0.142)])
def test_an_effect_size_is_no_t_statistic(n, expected):
    """If the classes do not differ, its sd is that of a difference of means over one prompt's sd."""
    evidence = effectsize.centred(moments_of(draw(n, 20_000, 1), draw(n, 20_000, 2)))
    _, effect, _ = effectsize.effect_and_shift(evidence)
    assert effect.std().item() == pytest.approx(expected, rel=0.02)
    assert math.sqrt(2 / n) == pytest.approx(expected, rel=0.02)


def test_a_shift_above_2_is_found_whatever_the_prompts_are():
    evidence = effectsize.centred(moments_of(draw(30, 20_000, 1), draw(30, 20_000, 2)))
    _, _, shift = effectsize.effect_and_shift(evidence)
    assert (shift > 2).double().mean().item() == pytest.approx(0.0228, abs=0.003)


@pytest.mark.parametrize("change", [0.0, 1e-7])
def test_neurons_that_do_not_vary_have_no_effect(change):
    """Rounding is no variance: without a rule for it, the last neuron here has an effect of -1e8."""
    same = torch.tensor([[1.7, 0.0, -3.1]], dtype=torch.float64)
    other = torch.tensor([[1.7, 0.0, 2.5]], dtype=torch.float64)
    rounded = 1 + change * torch.tensor([[0.0], [1.0], [0.0], [-1.0]], dtype=torch.float64)
    delta, effect, shift = effectsize.effect_and_shift(
        effectsize.centred(moments_of(same * rounded, other * rounded))
    )
    torch.testing.assert_close(delta, torch.tensor([0, 0, -5.6], dtype=torch.float64))
    assert not effect.any() and shift.isfinite().all()


def test_a_neuron_s_own_level_does_not_enter():
    """So neurons can trade places before groups of prompts are merged, as for pools of shuffled sets."""
    harmful, ordinary, level = draw(8, 30, 1), draw(6, 30, 2), 5 * draw(1, 30, 3)
    plain, moved = (effectsize.centred(moments_of(harmful + c, ordinary + c)) for c in (0, level))
    torch.testing.assert_close(moved, plain, rtol=1e-10, atol=1e-11)


def test_groups_merge_to_the_moments_of_all_their_prompts():
    ordinary, groups = draw(9, 30, 0), [draw(n, 30, n) + n for n in (4, 7)]
    evidence = [{"layers.0.down": effectsize.centred(moments_of(group, ordinary))} for group in groups]
    merged = effectsize.merge(*evidence, ([], []), OPTIONS)["layers.0.down"]
    torch.testing.assert_close(merged, effectsize.centred(moments_of(torch.cat(groups), ordinary)))


def test_groups_merge_after_their_neurons_traded_places():
    """As if deviations from the ordinary mean had traded places, prompt by prompt."""
    ordinary, groups = draw(9, 30, 0), [draw(n, 30, n) + n for n in (4, 7)]
    level = ordinary.mean(0)
    evidence = [{"layers.0.down": effectsize.centred(moments_of(group, ordinary))} for group in groups]
    orders = [
        effectsize.shuffle({"layers.0.down": torch.arange(30)}, seed)["layers.0.down"] for seed in (1, 2)
    ]
    moved = [effectsize.shuffle(some, seed) for some, seed in zip(evidence, (1, 2), strict=True)]
    n, delta, harmful, *_ = effectsize.merge(*moved, ([], []), OPTIONS)["layers.0.down"]
    every = torch.cat([(group - level)[:, order] for group, order in zip(groups, orders, strict=True)])
    assert not torch.equal(*orders) and (n == 11).all()
    torch.testing.assert_close(delta, every.mean(0))
    torch.testing.assert_close(harmful, 11 * every.var(0, correction=0))
