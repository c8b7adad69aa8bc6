"""The directions of a change are those of W - W_base, and only where it changed by more than rounding."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from safety_regions.scoring.change import change_space
from tests.oracles.ranks import projector
from tests.tiny import FAMILIES, tiny_backbone


def changed(family: str, dtype: torch.dtype = torch.float32):
    """Return a backbone that differs from its base by a rank of 2 in one projection, and in two rows of another."""
    backbone = replace(tiny_backbone(family, dtype=dtype), base=tiny_backbone(family, dtype=dtype))
    weights, generator = dict(backbone.weights()), torch.Generator().manual_seed(5)
    low, up = weights["layers.1.o"], weights["layers.2.up"]
    out, into = (torch.randn(2, n, generator=generator) for n in low.shape)
    with torch.no_grad():
        low += (0.3 * out.T @ into).to(dtype)
        up[[3, 7]] *= 1.5
    return backbone, out.T.double().numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_changed_has_directions(family):
    backbone, out = changed(family)
    found = change_space(backbone, 0.5)
    assert {where: n for where, n in found.selected_at.items() if n} == {"layers.1.o": 2, "layers.2.up": 2}
    assert np.abs(projector(found.bases["layers.1.o"]) - projector(out)).max() < 1e-4
    axes = np.eye(len(found.bases["layers.2.up"]))[:, [3, 7]]
    assert np.abs(projector(found.bases["layers.2.up"]) - axes @ axes.T).max() < 1e-5
    assert found.metadata["granularity"] == "rank" and found.available == found.units_at


def test_a_fraction_keeps_the_directions_of_the_largest_change():
    backbone, _ = changed("llama")
    few, many = change_space(backbone, 0.04), change_space(backbone, 0.5)
    assert few.selected_at["layers.1.o"] == few.selected_at["layers.2.up"] == 1
    for where, basis in few.bases.items():
        assert np.array_equal(basis, many.bases[where][:, : basis.shape[1]])


def test_rounding_is_no_change():
    """Weights that were rounded to bfloat16 after a change that is too small for it did not change in any direction."""
    backbone, _ = changed("llama", torch.bfloat16)
    with torch.no_grad():
        dict(backbone.weights())["layers.0.q"][0, 0] *= 1 + 2**-7
    found = change_space(backbone, 0.5)
    assert found.selected_at["layers.0.q"] == 0 and found.selected_at["layers.2.up"] == 2
