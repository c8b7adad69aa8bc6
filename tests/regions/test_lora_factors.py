"""A region of an adapter's factors must expand to the weights that it changes most."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.formats.expand import Factor, expand_region
from safety_regions.formats.region import Region
from safety_regions.model.lora import read_adapter
from safety_regions.regions.lora_factors import read_factors
from tests.tiny import FAMILIES, tiny_backbone
from tests.training.adapters import write_adapter

SIZES = {"rank": st.integers(1, 4), "rows": st.integers(1, 6), "columns": st.integers(1, 6)}
WHERE = "layers.0.q"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_factors_are_those_that_are_scored(family, dtype, tmp_path):
    backbone = tiny_backbone(family)
    write_adapter(backbone, tmp_path, dtype=dtype)
    factors = read_factors(sorted(tmp_path.iterdir()), backbone.family.name, backbone.shapes)
    assert set(factors) == set(backbone.shapes)
    for lora in read_adapter(backbone, tmp_path):
        for where, part in lora.parts():
            factor = factors[where.removesuffix(".B")]
            assert factor.a_address == lora.address
            assert np.array_equal(factor.a, lora.a.numpy()) and np.array_equal(factor.b, part.numpy())


def test_without_an_adapter_there_are_no_factors_and_a_broken_one_is_named(tmp_path):
    backbone = tiny_backbone("llama")
    assert read_factors([], "llama", backbone.shapes) == {}
    broken = tmp_path / "adapter_model.safetensors"
    broken.write_bytes(b"{}")
    with pytest.raises(StudyError, match=r"adapter_model.safetensors: found weights that cannot be read"):
        read_factors([broken], "llama", backbone.shapes)


def case(seed, rank, rows, columns, density=0.5):
    rng = np.random.default_rng(seed)
    factor = Factor(f"{WHERE}.A", rng.normal(size=(rank, columns)), rng.normal(size=(rows, rank)))
    return rng.random((rank, columns)) < density, rng.random((rows, rank)) < density, factor


def expand(region_a, region_b, factor, fraction):
    metadata = {"granularity": "lora_weight", "scope": "matrix", "fraction": fraction}
    region = Region.pack({f"{WHERE}.A": region_a, f"{WHERE}.B": region_b}, metadata)
    shape = (len(factor.b), factor.a.shape[1])
    return expand_region(region, {WHERE: shape}, {WHERE: factor}).flags(WHERE)


@given(seed=st.integers(0, 2**31), fraction=st.sampled_from([0.1, 0.25, 0.5, 1.0]), **SIZES)
def test_they_are_the_largest_entries_of_the_product_of_the_selected(seed, fraction, rank, rows, columns):
    region_a, region_b, factor = case(seed, rank, rows, columns)
    effect = {
        (i, j): abs(
            sum(factor.b[i, k] * factor.a[k, j] for k in range(rank) if region_b[i, k] and region_a[k, j])
        )
        for i in range(rows)
        for j in range(columns)
    }
    ranked = sorted(effect, key=lambda unit: (-effect[unit], unit))[: int(fraction * rows * columns)]
    found = expand(region_a, region_b, factor, fraction)
    assert {tuple(unit) for unit in np.argwhere(found).tolist()} == {
        unit for unit in ranked if effect[unit] > 0
    }


@pytest.mark.parametrize("fraction", [0.05, 0.2])
def test_the_whole_factors_give_the_whole_fraction_and_none_gives_none(fraction):
    region_a, region_b, factor = case(0, 4, 30, 20, density=2.0)
    assert expand(region_a, region_b, factor, fraction).sum() == int(fraction * 600)
    assert not expand(region_a & False, region_b, factor, fraction).any()
