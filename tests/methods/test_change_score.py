"""The change score must equal its slow definition on every family, and see nothing but the change."""

from dataclasses import replace

import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.methods import change_score
from safety_regions.model.backbone import Backbone
from safety_regions.scoring import passes
from safety_regions.scoring.memory import Plan
from safety_regions.scoring.samples import Samples
from tests.methods.test_weights import assert_close, run, samples_of
from tests.oracles import neurons as oracle
from tests.tiny import FAMILIES, tiny_backbone

OPTIONS = {"positions": "predicting", "relative": False}


def pair(family: str = "llama", dtype: torch.dtype = torch.float32, **changes) -> Backbone:
    """Return a backbone whose base has other weights."""
    aligned, base = (tiny_backbone(family, seed=seed, dtype=dtype, **changes) for seed in (0, 1))
    return replace(aligned, base=base)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("positions", ["predicting", "response"])
@pytest.mark.parametrize("relative", [False, True])
def test_the_change_score_is_its_definition(family, positions, relative):
    backbone, options = pair(family), {"positions": positions, "relative": relative}
    expected = oracle.change(backbone, backbone.base, samples_of(), positions, relative)
    assert_close(run(change_score, backbone, samples_of(), options), expected, tolerance=5e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relative", [False, True])
def test_a_checkpoint_has_not_changed_from_itself(family, dtype, relative):
    backbone = pair(family, dtype)
    backbone.base.model.load_state_dict(backbone.model.state_dict())
    found = run(change_score, backbone, samples_of(), OPTIONS | {"relative": relative})
    assert len(found) == 6 and not any(scores.any() for scores in found.values())


def test_only_the_neurons_that_changed_have_a_score_in_the_last_layer():
    """A change of one row of up in the last layer changes one activation there, and none below."""
    backbone = pair()
    backbone.base.model.load_state_dict(backbone.model.state_dict())
    with torch.no_grad():
        dict(backbone.weights())["layers.2.up"][7] *= 1.5
    found = run(change_score, backbone, samples_of(), OPTIONS | {"relative": True})
    assert {where for where, scores in found.items() if scores.any()} == {"layers.2.up", "layers.2.down"}
    for where in ("layers.2.up", "layers.2.down"):
        assert found[where].nonzero().flatten().tolist() == [7]
        assert found[where][7].item() == pytest.approx(1 / 3, rel=1e-5), "(1.5 - 1) / 1.5"


def test_the_relative_score_does_not_depend_on_the_scale_of_a_neuron():
    """Multiplying row k of up, and dividing column k of down, in both models changes nothing else."""
    backbone, scaled = pair(), pair()
    for one in (scaled, scaled.base):
        weights = dict(one.weights())
        with torch.no_grad():
            weights["layers.1.up"][3] *= 10
            weights["layers.1.down"][:, 3] /= 10
    plain, other = (
        [run(change_score, one, samples_of(), OPTIONS | {"relative": kind}) for one in (backbone, scaled)]
        for kind in (False, True)
    )
    for before, after, factor in ((*plain, 10.0), (*other, 1.0)):
        expected = {where: scores.clone() for where, scores in before.items()}
        for where in ("layers.1.up", "layers.1.down"):
            expected[where][3] *= factor
        for where, scores in expected.items():
            torch.testing.assert_close(after[where], scores, rtol=1e-4, atol=1e-6)


def test_both_sides_of_a_shuffled_neuron_move_together():
    backbone = pair()
    evidence = change_score.gather(backbone, Samples(samples_of()), OPTIONS)
    moved = change_score.shuffle(evidence, 3)
    for options in (OPTIONS, OPTIONS | {"relative": True}):
        plain, found = (dict(change_score.scores(backbone, some, options)) for some in (evidence, moved))
        for layer in range(3):
            up, down = found[f"layers.{layer}.up"], found[f"layers.{layer}.down"]
            assert torch.equal(up, down) and not torch.equal(up, plain[f"layers.{layer}.up"])
            assert torch.equal(up.sort().values, plain[f"layers.{layer}.up"].sort().values)


def test_layers_in_several_passes_have_the_scores_of_one(monkeypatch, tmp_path):
    backbone, samples = pair("phi3"), Samples(samples_of(), batch_size=3, scratch=tmp_path)
    whole = change_score.gather(backbone, samples, OPTIONS)
    monkeypatch.setattr(passes, "plan_passes", lambda *_: Plan(3, (range(1), range(1, 3))))
    found = change_score.gather(backbone, samples, OPTIONS)
    assert list(found) == list(whole) and all(torch.equal(found[where], whole[where]) for where in whole)


def test_one_model_works_after_the_other_and_activations_go_through_files(monkeypatch, tmp_path):
    backbone, order, folders = pair(), [], []
    for name, one in (("base", backbone.base), ("aligned", backbone)):
        one.decoder.register_forward_pre_hook(lambda *_, name=name: order.append(name))
    start = passes.Rows.__init__
    monkeypatch.setattr(
        passes.Rows, "__init__", lambda self, folder: (folders.append(folder), start(self, folder))[0]
    )
    change_score.gather(backbone, Samples(samples_of(5), batch_size=2, scratch=tmp_path), OPTIONS)
    assert order == ["base"] * 3 + ["aligned"] * 3
    assert folders == [tmp_path] * 3, "one for the inputs of down in each layer"


def test_the_two_models_may_use_batches_of_other_sizes(monkeypatch):
    """If the memory for one of them is smaller, the inputs of the same tokens must still be compared."""
    backbone, sizes = pair("qwen3"), []
    expected = change_score.gather(backbone, Samples(samples_of(5), batch_size=2), OPTIONS)
    monkeypatch.setattr(
        passes, "plan_passes", lambda *_: Plan(sizes.append(1) or 2 + len(sizes), (range(3),))
    )
    found = change_score.gather(backbone, Samples(samples_of(5), batch_size=2), OPTIONS)
    assert len(sizes) == 2
    for where, values in expected.items():
        torch.testing.assert_close(found[where], values, rtol=1e-5, atol=0)


def test_a_base_of_other_shapes_is_refused():
    backbone = replace(tiny_backbone("llama"), base=tiny_backbone("llama", num_hidden_layers=2))
    with pytest.raises(StudyError, match=r"other shapes than the base tiny llama .3 blocks.*2 blocks"):
        change_score.gather(backbone, Samples(samples_of()), OPTIONS)


def test_a_value_of_the_base_that_is_not_finite_names_address_and_prompt():
    backbone = pair("llama3")
    with torch.no_grad():
        backbone.base.model.get_input_embeddings().weight[samples_of()[1].ids[0]] = float("nan")
    with pytest.raises(StudyError, match=r"layers.0.q of the base: found values that are not finite for p1;"):
        change_score.gather(backbone, Samples(samples_of(2), batch_size=1), OPTIONS)
