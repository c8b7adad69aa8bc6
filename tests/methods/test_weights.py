"""Methods of weights must equal their slow definitions on every family."""

from dataclasses import replace

import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.methods import delta, gradient, signed_snip, snip, wanda
from safety_regions.model.batches import Sample
from safety_regions.scoring.samples import Samples
from tests.oracles import weights as oracle
from tests.tiny import FAMILIES, tiny_backbone

SNIP = {"loss": "mean", "accumulator": "float32"}
SIGNED = {"responses": "refused", "loss": "mean", "positive": True, "absolute": False}
WANDA = {"positions": "response", "difference": False}


def samples_of(n: int = 5, seed: int = 3) -> list[Sample]:
    """Return random samples of several lengths, some longer than the sliding window."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(n):
        prompt, response = 3 + 4 * (i % 3), 1 + (3 * i) % 7
        ids = torch.randint(0, 256, (prompt + response,), generator=generator).tolist()
        made.append(Sample(f"p{i}", ids, prompt))
    return made


def run(method, backbone, samples, options, batch_size: int = 3) -> dict[str, torch.Tensor]:
    evidence = method.gather(backbone, Samples(samples, batch_size=batch_size), options)
    return dict(method.scores(backbone, evidence, options))


def assert_close(found: dict, expected: dict, tolerance: float = 2e-5) -> None:
    assert list(found) == list(expected)
    for address, scores in found.items():
        scale = expected[address].abs().max()
        assert scale > 0, address
        error = (scores.double() - expected[address]).abs().max() / scale
        assert error < tolerance, f"{address}: {error:.1e}"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_snip_is_its_definition(family, loss):
    backbone = tiny_backbone(family)
    options = SNIP | {"loss": loss}
    assert_close(run(snip, backbone, samples_of(), options), oracle.snip(backbone, samples_of(), loss))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", ["mean", "sum"])
@pytest.mark.parametrize("scale", ["none", "sigma"])
def test_gradient_is_its_definition(family, loss, scale):
    backbone, options = tiny_backbone(family), {"loss": loss, "scale": scale}
    expected = oracle.gradient(backbone, samples_of(), loss, scale)
    assert_close(run(gradient, backbone, samples_of(), options), expected)


def test_the_spread_of_a_matrix_moves_no_rank_in_it_but_moves_matrices_against_each_other():
    backbone = tiny_backbone("phi3")  # its fused matrices have one spread for each projection
    plain, scaled = (
        run(gradient, backbone, samples_of(), {"loss": "mean", "scale": scale}) for scale in ("none", "sigma")
    )
    factors = {}
    for address, weight in backbone.weights():
        factors[address] = weight.double().std().item()
        torch.testing.assert_close(scaled[address], plain[address] * factors[address], rtol=1e-5, atol=0)
        assert torch.equal(scaled[address].flatten().argmax(), plain[address].flatten().argmax())
    assert factors["layers.0.q"] != factors["layers.0.k"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", ["mean", "sum"])
@pytest.mark.parametrize("absolute", [False, True])
def test_signed_snip_is_its_definition(family, loss, absolute):
    backbone, options = tiny_backbone(family), SIGNED | {"loss": loss, "absolute": absolute}
    expected = oracle.signed_snip(backbone, samples_of(), loss, absolute)
    assert_close(run(signed_snip, backbone, samples_of(), options), expected)


def test_deleting_a_weight_of_the_highest_score_makes_the_response_less_likely():
    """The sign: the loss must rise by about the score when a weight with a positive score is set to zero."""
    backbone, samples = tiny_backbone("llama3", dtype=torch.float64), samples_of(1)
    found = run(signed_snip, backbone, samples, SIGNED)

    def loss() -> float:
        with torch.no_grad():
            logits = backbone.model(input_ids=torch.tensor([samples[0].ids])).logits[0].log_softmax(-1)
        ids, start = samples[0].ids, samples[0].prompt_length
        return -sum(logits[t - 1, ids[t]].item() for t in range(start, len(ids))) / (len(ids) - start)

    before, weight = loss(), dict(backbone.weights())["layers.1.down"]
    score = found["layers.1.down"]
    for place in (score.argmax(), score.argmin()):
        row, column = divmod(int(place), score.shape[1])
        kept = weight[row, column].item()
        with torch.no_grad():
            weight[row, column] = kept * 0.99
            change = (loss() - before) / 0.01
            weight[row, column] = kept
        assert change == pytest.approx(score[row, column].item(), rel=0.02)
    assert score.max() > 0 > score.min()


def sums_of_blocks(family: str) -> list[dict[str, torch.Tensor]]:
    """Return signed SNIP's scores of each block by projection: of the definition, then of the method."""
    found = oracle.signed_snip(tiny_backbone(family), samples_of())
    fast = run(signed_snip, tiny_backbone(family), samples_of(), SIGNED)
    return [
        {
            where.rpartition(".")[2]: values
            for where, values in scored.items()
            if where.startswith(f"layers.{i}.")
        }
        for scored in (found, fast)
        for i in range(3)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_both_sides_of_a_feed_forward_neuron_have_the_same_sum(family):
    """Both sums are -a_k d loss / d a_k: a_k is linear in row k of up, and its output in column k of down (Euler)."""
    for block in sums_of_blocks(family):
        up, down = block["up"].double().sum(1), block["down"].double().sum(0)
        scale = block["up"].double().abs().sum(1).max()
        assert (up - down).abs().max() < 1e-5 * scale
        assert up.abs().max() > 1e-3 * scale, "the sums are not zero"


@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_outputs_of_attention_have_the_same_sum_where_values_have_no_bias(family):
    names = dict(tiny_backbone(family).model.named_parameters())
    biased = any(name.endswith("v_proj.bias") for name in names)
    assert biased == (family == "qwen2")
    for block in sums_of_blocks(family):
        v, o = (block[name].double().sum() for name in "vo")
        scale = block["v"].double().abs().sum()
        assert ((v - o).abs() < 1e-5 * scale) != biased


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_a_norm_behind_attention_cancels_a_common_scale_of_its_outputs(family):
    for block in sums_of_blocks(family):
        assert block["o"].double().sum().abs() < 1e-4 * block["o"].double().abs().sum()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("positions", ["response", "predicting", "all"])
def test_wanda_is_its_definition(family, positions):
    backbone = tiny_backbone(family)
    options = WANDA | {"positions": positions}
    assert_close(run(wanda, backbone, samples_of(), options), oracle.wanda(backbone, samples_of(), positions))


def test_snip_takes_absolute_values_per_sample():
    """Gradients of two samples must not cancel: the score of a pool must be the mean of its samples' scores."""
    backbone, samples = tiny_backbone("llama"), samples_of(4)
    pooled = run(snip, backbone, samples, SNIP)
    single = [run(snip, backbone, [sample], SNIP) for sample in samples]
    assert_close(pooled, {a: sum(s[a] for s in single) / 4 for a in pooled}, tolerance=5e-6)


def test_wanda_moments_add():
    backbone, samples = tiny_backbone("qwen2"), samples_of(4)
    pooled = wanda.gather(backbone, Samples(samples, batch_size=2), WANDA)
    single = [wanda.gather(backbone, Samples([sample]), WANDA) for sample in samples]
    lengths = [len(sample.ids) - sample.prompt_length for sample in samples]
    for address, values in pooled.items():
        total = sum(n * s[address] ** 2 for n, s in zip(lengths, single, strict=True))
        torch.testing.assert_close(values, (total / sum(lengths)).sqrt())


def test_the_native_accumulator_keeps_the_dtype_of_the_weights():
    backbone = tiny_backbone("llama", dtype=torch.bfloat16)
    exact = snip.gather(backbone, Samples(samples_of()), SNIP)
    native = snip.gather(backbone, Samples(samples_of()), SNIP | {"accumulator": "native"})
    assert {v.dtype for v in native.values()} == {torch.bfloat16}
    assert {v.dtype for v in exact.values()} == {torch.float32}


@pytest.mark.parametrize("positions", ["response", "predicting", "all"])
def test_wanda_merges_by_positions(positions):
    """A group with longer texts weighs more, as in one pass over both."""
    backbone, samples, options = tiny_backbone("llama"), samples_of(6), WANDA | {"positions": positions}
    groups = samples[:2], samples[2:]
    parts = [wanda.gather(backbone, Samples(group, batch_size=4), options) for group in groups]
    merged = wanda.merge(*parts, groups, options)
    for address, values in wanda.gather(backbone, Samples(samples, batch_size=4), options).items():
        torch.testing.assert_close(merged[address], values, rtol=1e-5, atol=1e-7)


def test_wanda_of_the_difference_to_the_base():
    aligned, base = tiny_backbone("llama"), tiny_backbone("llama", seed=1)
    samples, options = samples_of(), WANDA | {"difference": True}
    plain = run(wanda, aligned, samples, WANDA)
    found = run(wanda, replace(aligned, base=base), samples, options)
    before = dict(base.weights())
    for address, weight in aligned.weights():
        factor = (weight - before[address]).abs() / weight.abs()
        torch.testing.assert_close(found[address], plain[address] * factor, rtol=1e-4, atol=1e-7)
    same = run(wanda, replace(aligned, base=aligned), samples, options)
    assert all(not scores.any() for scores in same.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_delta_is_the_size_of_the_change(family, dtype):
    aligned, base = (tiny_backbone(family, seed=seed, dtype=dtype) for seed in (0, 1))
    found = run(delta, replace(aligned, base=base), samples_of(), {})
    expected = oracle.delta(aligned, base)
    assert list(found) == list(expected)
    for where, values in found.items():
        torch.testing.assert_close(values.double(), expected[where], rtol=1e-6, atol=1e-7)
    assert not any(
        values.any() for values in run(delta, replace(aligned, base=aligned), samples_of(), {}).values()
    )


def test_a_base_of_other_shapes_has_no_difference():
    other = replace(tiny_backbone("llama"), base=tiny_backbone("llama", num_hidden_layers=2))
    with pytest.raises(StudyError, match=r"other shapes than the base tiny llama .3 blocks.*2 blocks"):
        list(other.weight_pairs())
