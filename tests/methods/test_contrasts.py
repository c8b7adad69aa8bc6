"""What holds for every method that scores neurons or heads by the contrast of two classes of prompts."""

import pytest
import torch

from tests.methods.test_conformance import CASES, NORMAL, gather, samples_of
from tests.scoring.test_moments import classes
from tests.tiny import FAMILIES, tiny_backbone

CONTRASTS = [
    label
    for label, case in CASES.items()
    if case.card["contrast"] and case.card["granularity"] in ("neuron", "head")
]
FACTOR, NEURON = 3.0, 5


def score(label: str, backbone, samples, **options) -> dict[str, torch.Tensor]:
    given = CASES[label].options | options
    evidence = CASES[label].module.gather(backbone, samples, given)
    return dict(CASES[label].module.scores(backbone, evidence, given))


def rescaled(family: str):
    """A tiny model that computes the same: neuron 5 of each layer is 3 times larger, and is read by a third."""
    backbone = tiny_backbone(family)
    with torch.no_grad():
        for where, weight in backbone.weights():
            if where.endswith(".up"):
                weight[NEURON] *= FACTOR
            if where.endswith(".down"):
                weight[:, NEURON] /= FACTOR
    return backbone


@pytest.mark.parametrize("label", CONTRASTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_set_that_is_contrasted_with_itself_has_no_score(label, family):
    backbone, same = tiny_backbone(family), samples_of(NORMAL, "n", 4)
    evidence = gather(label, backbone, None, same)
    scores = dict(CASES[label].module.scores(backbone, evidence, CASES[label].options))
    assert scores and not any(values.any() for values in scores.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scale_of_a_neuron_is_no_effect_but_a_difference(family):
    """Effect sizes, contributions, and differences times the norm of the column do not depend on it; differences do."""
    plain, scaled, samples = tiny_backbone(family), rescaled(family), classes()
    invariant = [("effectsize", {"statistic": "effect"}), ("cna", {"by_effect": True}), ("direction", {})]
    for label, options in invariant:
        before, after = (score(label, backbone, samples, **options) for backbone in (plain, scaled))
        for where, values in before.items():
            torch.testing.assert_close(after[where], values, rtol=1e-3, atol=1e-5)
    before, after = (score("cna", backbone, samples) for backbone in (plain, scaled))
    for where, values in before.items():
        factor = torch.ones_like(values)
        factor[NEURON] = FACTOR
        torch.testing.assert_close(after[where], factor * values, rtol=1e-3, atol=1e-5)
