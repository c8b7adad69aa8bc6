"""ActSVD's spaces must equal the singular value decomposition of all outputs at once, on every family."""

from functools import cache

import numpy as np
import pytest
import torch

from safety_regions.methods import actsvd
from safety_regions.model.batches import Sample
from safety_regions.scoring.samples import Samples
from tests.methods.test_weights import samples_of
from tests.oracles.ranks import left_spaces, projector, sequential_spaces
from tests.tiny import FAMILIES, tiny_backbone

backbone_of = cache(tiny_backbone)
FEW = 3
"""Samples with fewer response tokens than ranks; `MANY` have more."""
MANY = 14


DENSE = {"sequential": None}


def spaces(backbone, evidence) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return address -> directions (out, r) and singular values (r,) as they are stored."""
    found = {}
    for where, values in actsvd.scores(backbone, evidence, {}):
        directions = actsvd.details(backbone, evidence, {}, where)["direction"]
        assert directions.shape == (len(values), dict(backbone.weights())[where].shape[0])
        found[where] = directions.T.double().numpy(), values.double().numpy()
    return found


def gather(backbone, samples: list[Sample], options: dict = DENSE):
    return actsvd.gather(backbone, Samples(samples, batch_size=3), options)


def tokens_of(samples: list[Sample]) -> int:
    return sum(len(sample.ids) - sample.prompt_length for sample in samples)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [FEW, MANY])
def test_the_spaces_are_those_of_all_outputs_at_once(family, n):
    """Projectors are compared where the next singular value is well below; vectors and signs are arbitrary."""
    backbone, samples = backbone_of(family), samples_of(n)
    found, expected = spaces(backbone, gather(backbone, samples)), left_spaces(backbone, samples)
    assert list(found) == list(expected)
    known, compared = {}, 0
    for where, (u, s) in expected.items():
        mine, values = found[where]
        known[where] = int((values > 0).sum())
        least = max(dict(backbone.weights())[where].shape) * np.finfo(np.float32).eps * s[0]
        assert (s > 2 * least).sum() <= known[where] <= (s > least / 2).sum() <= tokens_of(samples)
        np.testing.assert_allclose(values[: known[where]], s[: known[where]], atol=2e-6 * s[0])
        assert np.abs(mine[:, : known[where]].T @ mine[:, : known[where]] - np.eye(known[where])).max() < 1e-5
        assert not mine[:, known[where] :].any()
        for k in (1, 2, 5, 10, tokens_of(samples)):
            if k == known[where] or (k < len(s) and s[k - 1] - s[k] > 0.02 * s[0]):
                error = np.abs(projector(mine[:, :k]) - projector(u[:, :k])).max()
                assert error < 2e-5, f"{where} {k}: {error:.1e}"
                compared += 1
    assert compared > 2 * len(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_later_layers_read_what_earlier_ones_give_without_their_ranks(family):
    backbone, samples, fraction = backbone_of(family), samples_of(MANY), 0.125
    weights = {where: weight.clone() for where, weight in backbone.weights()}
    found = spaces(backbone, gather(backbone, samples, {"sequential": fraction}))
    expected = sequential_spaces(backbone, samples, fraction)
    dense = left_spaces(backbone, samples)
    assert list(found) == list(expected)
    changed = []
    for where, (u, s) in expected.items():
        mine, values = found[where]
        known = int((values > 0).sum())
        np.testing.assert_allclose(values[:known], s[:known], atol=1e-5 * s[0])
        changed.append(abs(s - dense[where][1]).max() > 1e-3 * s[0])
        k = int(fraction * len(s))
        if s[k - 1] - s[k] > 0.02 * s[0]:
            assert np.abs(projector(mine[:, :k]) - projector(u[:, :k])).max() < 1e-4
    assert not any(changed[:7]) and all(changed[7:])  # the first layer has none before it
    assert all(torch.equal(weight, weights[where]) for where, weight in backbone.weights())


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3"])
def test_a_shuffle_turns_the_inputs_and_keeps_their_strengths(family):
    """The trace of the evidence and its eigenvalues stay; the outputs' directions do not follow the data any more."""
    backbone = backbone_of(family)
    evidence = gather(backbone, samples_of(MANY))
    turned, other = actsvd.shuffle(evidence, 1), actsvd.shuffle(evidence, 2)
    assert list(turned) == list(evidence)
    for where, gram in evidence.items():
        torch.testing.assert_close(
            torch.linalg.eigvalsh(turned[where]),
            torch.linalg.eigvalsh(gram),
            rtol=1e-9,
            atol=1e-9 * gram.trace(),
        )
        assert torch.equal(turned[where], actsvd.shuffle(evidence, 1)[where])
        assert not torch.allclose(turned[where], gram) and not torch.allclose(turned[where], other[where])
    # q, k and v read the same inputs, so do gate and up: they are turned alike.
    assert {where.rpartition(".")[2] for where in evidence} == {"q", "o", "gate", "down"}


def test_a_passes_evidence_is_small():
    backbone = backbone_of("llama")
    shapes = {where: tuple(gram.shape) for where, gram in gather(backbone, samples_of(FEW)).items()}
    assert shapes == {f"layers.{i}.{p}": (32, 32) for i in range(3) for p in ("q", "o", "gate", "down")}
