"""Values that are not finite raise an error that names them, and shuffles keep the marginal distributions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.methods import snip, wanda
from safety_regions.model.batches import Sample
from safety_regions.model.finite import extremes
from safety_regions.scoring.evidence import shuffle_evidence, shuffle_units
from safety_regions.scoring.samples import Samples
from tests.tiny import tiny_backbone

OPTIONS = {
    snip: {"loss": "mean", "accumulator": "float32"},
    wanda: {"positions": "response", "difference": False},
}


@pytest.mark.parametrize("method", [snip, wanda])
def test_a_value_that_is_not_finite_names_address_and_prompt(method):
    backbone = tiny_backbone("llama3")  # its output head is not tied to the embedding
    with torch.no_grad():  # only token 7 gives values that are not finite
        backbone.model.get_input_embeddings().weight[7] = float("nan")
    samples = [Sample("a/1", [1, 2, 3], 1), Sample("a/2", [1, 2, 7], 1)]
    with pytest.raises(StudyError, match=r"(layers.0.q|loss): found values that are not finite for a/2;"):
        method.gather(backbone, Samples(samples), OPTIONS[method])


@given(st.lists(st.sampled_from([0.0, -1.5, 2.0, 3e38, -3e38, math.nan, math.inf, -math.inf]), min_size=1))
def test_extremes_are_finite_where_all_is(values):
    rows = torch.tensor([values, values[::-1], [1.0] * len(values)])
    assert torch.equal(torch.isfinite(extremes(rows)).all(0), torch.isfinite(rows).all(1))
    assert torch.equal(
        torch.isfinite(extremes(rows.bfloat16())).all(0), torch.isfinite(rows.bfloat16()).all(1)
    )


@given(st.integers(0, 2**31), st.integers(1, 7), st.integers(1, 7))
def test_a_shuffle_keeps_the_marginals(seed, rows, columns):
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    evidence = {"layers.0.q": values, "layers.0.k": values.clone()}
    shuffled = shuffle_evidence(evidence, seed)
    for address, before in evidence.items():
        assert torch.equal(shuffled[address].flatten().sort().values, before.flatten().sort().values)
        assert torch.equal(shuffled[address], shuffle_evidence(evidence, seed)[address])


@given(st.integers(0, 2**31), st.sampled_from([1, 2, 300, 513]), st.integers(1, 7))
def test_a_shuffle_within_rows_keeps_every_row(seed, rows, columns):
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    evidence = {"layers.0.q": values}
    shuffled = shuffle_evidence(evidence, seed, "r")["layers.0.q"]
    assert torch.equal(shuffled.sort(dim=-1).values, values.sort(dim=-1).values)
    assert torch.equal(shuffled, shuffle_evidence(evidence, seed, "r")["layers.0.q"])


def test_rows_are_shuffled_apart():
    values = torch.arange(40.0).repeat(500, 1)
    shuffled = shuffle_evidence({"layers.0.q": values}, 3, "r")["layers.0.q"]
    assert len({tuple(row) for row in shuffled.tolist()}) == 500
    means = shuffled.mean(
        dim=0
    )  # every column has a random value of each row: mean 19.5, sd 11.5 / sqrt(500)
    assert (means - 19.5).abs().max() < 4.5 * values[0].std() / 500**0.5


def test_a_shuffle_that_keeps_marginals_keeps_row_and_column_sums_on_average():
    generator = torch.Generator().manual_seed(1)
    rows, columns = (torch.rand(shape, generator=generator) ** 3 for shape in ((30, 1), (1, 40)))
    values = rows * columns * torch.rand(30, 40, generator=generator).exp()
    drawn = [shuffle_evidence({"layers.0.q": values}, seed, "m")["layers.0.q"] for seed in range(200)]
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], values)
    for axis in (0, 1):
        sums = torch.stack([one.sum(axis) for one in drawn])
        error = sums.std(0) / len(drawn) ** 0.5
        # The ratios have a weighted mean of 1, but a plain mean that is a little off.
        assert ((sums.mean(0) - values.sum(axis)).abs() < 5 * error + 0.05 * values.sum(axis)).all()


def test_signed_values_keep_the_row_and_column_sums_of_their_sizes_and_their_signs_move():
    """The sizes move exactly as those of unsigned values do, whose row and column sums are kept on average."""
    sizes = torch.rand(30, 40, generator=torch.Generator().manual_seed(1)) ** 3
    signs = torch.where(torch.rand(30, 40, generator=torch.Generator().manual_seed(2)) < 0.3, -1.0, 1.0)
    signed = shuffle_evidence({"layers.0.q": sizes * signs}, 5, "m")["layers.0.q"]
    assert torch.equal(signed.abs(), shuffle_evidence({"layers.0.q": sizes}, 5, "m")["layers.0.q"])
    moved = shuffle_evidence({"layers.0.q": signs}, 5)["layers.0.q"]
    assert torch.equal(signed.sign(), moved) and not torch.equal(moved, signs)


def test_values_per_channel_have_no_rows_to_keep():
    values = {"layers.0.q": torch.arange(100.0)}
    plain, rows, marginals = (shuffle_evidence(values, 1, kind)["layers.0.q"] for kind in ("", "r", "m"))
    assert torch.equal(plain, rows) and not torch.equal(plain, values["layers.0.q"])
    assert torch.equal(marginals, values["layers.0.q"]), "they are column sums"


def test_zero_rows_and_columns_stay_zero():
    values = torch.tensor([[0.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    shuffled = shuffle_evidence({"layers.0.q": values}, 1, "m")["layers.0.q"]
    assert torch.isfinite(shuffled).all() and shuffled[0].tolist() == [0, 0] and shuffled[:, 0].sum() == 0


@given(st.integers(0, 2**31), st.integers(1, 7), st.integers(1, 7))
def test_a_shuffle_of_units_keeps_each_unit_whole(seed, prompts, units):
    values = torch.arange(prompts * units).view(prompts, units)
    shuffled = shuffle_units({"layers.0.q": values}, seed)["layers.0.q"]
    assert sorted(shuffled.T.tolist()) == values.T.tolist()
    assert torch.equal(shuffled[0], shuffle_evidence({"layers.0.q": values[0]}, seed)["layers.0.q"])


def test_seeds_and_addresses_shuffle_apart():
    evidence = {"layers.0.q": torch.arange(100.0), "layers.0.k": torch.arange(100.0)}
    first, second = shuffle_evidence(evidence, 1), shuffle_evidence(evidence, 2)
    assert not torch.equal(first["layers.0.q"], second["layers.0.q"])
    assert not torch.equal(first["layers.0.q"], first["layers.0.k"])
