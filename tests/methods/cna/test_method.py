"""CNA must equal its slow definition on every family, with every option."""

import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.methods import load_method
from safety_regions.methods.cna import method as cna
from safety_regions.methods.cna import universal
from safety_regions.model.backbone import Backbone
from safety_regions.scoring.samples import Samples
from safety_regions.study.method_shelf import method_cards
from safety_regions.units.fractions import scope_count
from safety_regions.units.selections import parse_selection
from tests.oracles import contrasts as oracle
from tests.scoring.test_moments import classes
from tests.tiny import FAMILIES, tiny_backbone

OPTIONS = {name: option["default"] for name, option in method_cards()["cna"]["options"].items()}


def run(backbone: Backbone, samples: Samples, **options) -> dict[str, torch.Tensor]:
    given = OPTIONS | options
    return dict(cna.scores(backbone, cna.gather(backbone, samples, given), given))


def literal(backbone: Backbone, samples: Samples) -> torch.Tensor:
    """delta of every neuron by the slow definition, (layers, neurons)."""
    return torch.tensor(oracle.cna(backbone, samples.identification, samples.contrast), dtype=torch.float64)


def assert_close(found: dict, expected: torch.Tensor, layers=range(3)) -> None:
    """Check the scores of up and down of the layers, to 2e-5 of the largest."""
    assert list(found) == [f"layers.{i}.{p}" for i in layers for p in ("up", "down")]
    for layer in layers:
        up, down = (found[f"layers.{layer}.{p}"] for p in ("up", "down"))
        assert torch.equal(up, down) and up.dtype == torch.float32
        error = (up.double() - expected[layer]).abs().max() / expected.abs().max()
        assert error < 2e-5, f"layer {layer}: {error:.1e}"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_their_definition(family):
    backbone, samples = tiny_backbone(family), classes()
    delta = literal(backbone, samples)
    norms = torch.tensor(oracle.column_norms(backbone), dtype=torch.float64)
    assert (delta < 0).any() and (delta > 0).any()
    assert_close(run(backbone, samples), delta.abs())
    assert_close(run(backbone, samples, sign="positive"), delta)
    assert_close(run(backbone, samples, by_effect=True), delta.abs() * norms)
    assert_close(run(backbone, samples, by_effect=True, sign="positive"), delta * norms)
    assert_close(run(backbone, samples, skip_layers=2), delta.abs(), layers=[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_active_for_most_ordinary_prompts_have_no_score(family, monkeypatch):
    monkeypatch.setattr(universal, "ACTIVE", 0.05)
    backbone, samples = tiny_backbone(family), classes()
    shares = oracle.active_shares(backbone, samples.contrast, int(0.05 * 3 * 48))
    always = torch.tensor(shares) >= 0.6
    assert 0 < always.sum() < 20
    found = torch.stack(list(universal.shares_of_prompts(backbone, samples).values()))
    torch.testing.assert_close(found, torch.tensor(shares, dtype=torch.float64))
    delta = literal(backbone, samples)
    assert_close(run(backbone, samples, universal=0.6), torch.where(always, 0, delta.abs()))
    evidence = cna.gather(backbone, samples, OPTIONS | {"universal": 0.6})
    columns = cna.details(backbone, evidence, OPTIONS, "layers.2.down")
    torch.testing.assert_close(columns["difference"], delta[2], rtol=1e-4, atol=1e-5)


def test_excluded_neurons_stay_excluded_in_a_pool_of_shuffles(monkeypatch):
    """Each of two shuffled groups has as many neurons without a score, at places of their own."""
    monkeypatch.setattr(universal, "ACTIVE", 0.05)
    backbone, samples, given = tiny_backbone("llama"), classes(), OPTIONS | {"universal": 0.6}
    evidence = cna.gather(backbone, samples, given)
    groups = [cna.shuffle(evidence, seed) for seed in (1, 2)]
    alone = [dict(cna.scores(backbone, some, given | {"sign": "positive"})) for some in groups]
    merged = load_method("cna").merge(*groups, (samples.identification, samples.identification), given)
    assert sum(int((values == 0).sum()) for values in alone[0].values()) > 0
    for where, values in cna.scores(backbone, merged, given | {"sign": "positive"}):
        torch.testing.assert_close(values, (alone[0][where] + alone[1][where]) / 2)


def test_at_least_one_neuron_is_active():
    """0.1 % of 144 neurons is none."""
    backbone, samples = tiny_backbone("llama"), classes()
    found = torch.cat(list(universal.shares_of_prompts(backbone, samples).values()))
    expected = torch.tensor(oracle.active_shares(backbone, samples.contrast, 1), dtype=torch.float64)
    torch.testing.assert_close(found, expected.flatten())
    assert found.sum() == 1


def test_the_sign_is_kept_in_the_table():
    backbone, samples = tiny_backbone("olmo2"), classes()
    evidence, delta = cna.gather(backbone, samples, OPTIONS), literal(backbone, samples)
    for where in ("layers.1.up", "layers.1.down"):
        columns = cna.details(backbone, evidence, OPTIONS, where)
        assert list(columns) == ["difference"]
        torch.testing.assert_close(columns["difference"], delta[1], rtol=1e-4, atol=1e-5)


def test_a_shuffle_moves_differences_within_their_layer_and_no_weight():
    backbone, given = tiny_backbone("qwen2"), OPTIONS | {"by_effect": True}
    evidence = cna.gather(backbone, classes(), given)
    shuffled, weights = cna.shuffle(evidence, 1), dict(backbone.weights())
    plain, moved = (dict(cna.scores(backbone, some, given)) for some in (evidence, shuffled))
    for layer in range(3):
        norm = weights[f"layers.{layer}.down"].norm(dim=0)
        up, before = moved[f"layers.{layer}.up"], plain[f"layers.{layer}.up"]
        assert torch.equal(up, moved[f"layers.{layer}.down"]) and not torch.equal(up, before)
        torch.testing.assert_close((up / norm).sort().values, (before / norm).sort().values)


def test_a_model_must_have_a_layer_that_is_not_skipped():
    with pytest.raises(StudyError, match="skip_layers: found 3 of 3 layers; expected at most 2"):
        run(tiny_backbone("llama"), classes(), skip_layers=3)


def test_the_preset_takes_as_many_neurons_as_the_released_benchmarks():
    """1600 neurons, each with two sides, of the 30 layers of Llama-3.1-8B that are not skipped."""
    preset = method_cards()["cna"]["presets"]["nous_code"]
    (selection,) = map(parse_selection, preset["selections"])
    left = 32 - preset["options"]["skip_layers"]
    assert scope_count(selection.fraction, 2 * left * 14_336) == 2 * 1600 and selection.scope == "global"
