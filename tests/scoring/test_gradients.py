"""The mean gradient must be that of autograd, however samples are batched, and merge as one pass over all samples."""

import pytest
import torch

from safety_regions.scoring.evidence import merge_means
from safety_regions.scoring.gradients import mean_gradients
from safety_regions.scoring.samples import Samples
from tests.methods.test_weights import assert_close, samples_of
from tests.oracles import weights as oracle
from tests.tiny import FAMILIES, tiny_backbone


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_the_mean_gradient_is_that_of_autograd(family, loss):
    backbone = tiny_backbone(family)
    expected = oracle.mean_gradient(backbone, samples_of(), loss)
    for batch_size in (1, 3):
        found = mean_gradients(backbone, Samples(samples_of(), batch_size=batch_size), loss)
        assert_close(found, expected, tolerance=5e-6)


def test_the_gradients_of_two_samples_may_cancel():
    """The mean keeps signs, so it is smaller than the mean of sizes, and groups of samples add up."""
    backbone, samples = tiny_backbone("llama"), samples_of(5)
    pooled = mean_gradients(backbone, Samples(samples, batch_size=2), "mean")
    single = [mean_gradients(backbone, Samples([sample]), "mean") for sample in samples]
    parts = [mean_gradients(backbone, Samples(group), "mean") for group in (samples[:2], samples[2:])]
    merged = merge_means(*parts, 2, 3)
    for address, values in pooled.items():
        scale = values.abs().max()
        assert (sum(one[address] for one in single) / 5 - values).abs().max() < 2e-6 * scale
        assert (merged[address] - values).abs().max() < 2e-6 * scale
        assert values.abs().mean() < 0.9 * sum(one[address].abs() for one in single).mean() / 5


def test_sums_of_bfloat16_weights_are_float32():
    backbone = tiny_backbone("llama", dtype=torch.bfloat16)
    found = mean_gradients(backbone, Samples(samples_of()), "mean")
    assert {values.dtype for values in found.values()} == {torch.float32}
