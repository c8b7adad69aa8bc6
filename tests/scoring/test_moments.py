"""Class moments must be the sums that a slow float64 run of each prompt gives."""

import math

import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.model.backbone import ScoredLinear, Slice
from safety_regions.model.batches import Sample, padded
from safety_regions.scoring.moments import TOKENS, Moments, class_moments
from safety_regions.scoring.samples import Samples
from tests.oracles import contrasts as oracle
from tests.tiny import FAMILIES, tiny_backbone

HARMFUL = ((7, 4), (3, 1), (15, 6), (9, 2))
"""Prompt and response tokens; some exceed the sliding window of 7."""
ORDINARY = ((5, 3), (12, 1), (3, 4))


def samples_of(lengths=HARMFUL, name: str = "p", seed: int = 3) -> list[Sample]:
    """Return random samples with the given numbers of prompt and response tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Sample(f"{name}{i}", torch.randint(0, 256, (sum(both),), generator=generator).tolist(), both[0])
        for i, both in enumerate(lengths)
    ]


def classes(batch_size: int = 3) -> Samples:
    return Samples(samples_of(), samples_of(ORDINARY, "n", 4), batch_size=batch_size)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("family", FAMILIES)
def test_moments_are_their_definition(family, tokens):
    backbone, given = tiny_backbone(family), classes()
    found = class_moments(backbone, given, tokens, ("o", "down"))
    assert list(found) == [f"layers.{i}.{p}" for i in range(3) for p in ("o", "down")]
    for projection in ("o", "down"):
        for row, samples in enumerate((given.identification, given.contrast)):
            for layer, neurons in enumerate(oracle.numbers(backbone, samples, tokens, projection)):
                moments = found[f"layers.{layer}.{projection}"][row]
                expected = [[len(v), math.fsum(v), math.fsum(a * a for a in v)] for v in neurons]
                wanted = torch.tensor(expected, dtype=torch.float64).T
                assert moments.dtype == torch.float64
                error = (moments - wanted).abs().amax(1) / wanted.abs().amax(1)
                assert error.max() < 1e-5, f"{projection} of layer {layer}: {error}"


def test_only_the_inputs_that_are_asked_for_are_kept():
    assert list(class_moments(tiny_backbone("phi3"), classes())) == [f"layers.{i}.down" for i in range(3)]


@pytest.mark.parametrize("tokens", TOKENS)
def test_moments_of_groups_add(tokens):
    backbone, given = tiny_backbone("qwen3"), classes()
    whole = class_moments(backbone, given, tokens)
    halves = [
        given._replace(identification=part) for part in (given.identification[:1], given.identification[1:])
    ]
    one, two = (class_moments(backbone, part, tokens) for part in halves)
    for where, moments in whole.items():
        torch.testing.assert_close(one[where][0] + two[where][0], moments[0], rtol=1e-5, atol=1e-6)


def test_a_response_does_not_count():
    backbone, given = tiny_backbone("gemma2"), classes()
    cut = given._replace(identification=[s._replace(ids=[*s.prompt.ids, 7]) for s in given.identification])
    first, second = (class_moments(backbone, some, "mean") for some in (given, cut))
    assert all(torch.equal(first[where], moments) for where, moments in second.items())


def test_the_spread_of_a_neuron_far_from_zero_is_not_lost():
    """Of a mean of 3000 standard deviations, float32 sums of squares leave no variance at all."""
    n = 40
    x = 3000 + torch.randn(n, 1, 5, generator=torch.Generator().manual_seed(0))
    linear = ScoredLinear(0, torch.nn.Linear(5, 2), (Slice("layers.0.down", 0, 2),))
    moments = Moments([linear], "last", ("down",))
    moments.add(linear, x, padded([Sample(f"p{i}", [1], 1) for i in range(n)]))
    count, total, squares = moments.evidence(n)["layers.0.down"]
    exact = x[:, 0].double().var(0, correction=0)
    torch.testing.assert_close(squares / count - (total / count).square(), exact, rtol=1e-6, atol=0)
    rough = x[:, 0].square().mean(0) - x[:, 0].mean(0).square()
    assert ((rough - exact).abs() > 0.1 * exact).any()


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_ordinary_prompts_are_refused(n):
    given = classes()
    with pytest.raises(StudyError, match=f"contrast: found {n} ordinary prompts; expected 2 or more"):
        class_moments(tiny_backbone("llama"), given._replace(contrast=given.contrast[:n]))
