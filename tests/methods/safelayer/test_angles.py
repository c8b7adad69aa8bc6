"""Hidden states and angles against a loop over single prompts and pairs, on every family."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.methods.safelayer import angles
from safety_regions.methods.safelayer.angles import mean_angle, mean_angles
from safety_regions.model.batches import Sample
from safety_regions.scoring.states import PromptStates, prompt_states
from tests.oracles import layers as oracle
from tests.tiny import FAMILIES, tiny_backbone


def samples_of(n: int, seed: int, name: str = "p") -> list[Sample]:
    """Random samples of several lengths; some longer than the sliding window."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(n):
        prompt, response = 3 + 4 * (i % 3), 1 + (3 * i) % 7
        ids = torch.randint(0, 256, (prompt + response,), generator=generator).tolist()
        made.append(Sample(f"{name}{i}", ids, prompt))
    return made


def by_prompt(states: PromptStates, layer: int) -> dict[str, list[float]]:
    return dict(zip(states.prompt_ids, states.vectors[layer].tolist(), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("normed", [True, False])
def test_states_are_those_of_single_prompts(family, normed):
    backbone, samples = tiny_backbone(family), samples_of(5, 1)
    states = prompt_states(backbone, samples, 3, normed=normed)
    for sample in samples:
        expected = oracle.last_prompt_states(backbone, sample, normed)
        for layer, vector in enumerate(expected):
            found = torch.tensor(by_prompt(states, layer)[sample.prompt_id])
            error = (found - torch.tensor(vector)).norm() / torch.tensor(vector).norm()
            assert error < 1e-5, (layer, sample.prompt_id)


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_batches_nor_responses_change_the_states(family):
    backbone, samples = tiny_backbone(family), samples_of(6, 2)
    alone = prompt_states(backbone, samples, 1, normed=True)
    cut = [sample._replace(ids=[*sample.ids[: sample.prompt_length], 7]) for sample in samples]
    for size, given_samples in ((2, samples), (6, samples), (4, cut), (6, samples[::-1])):
        other = prompt_states(backbone, given_samples, size, normed=True)
        for layer in range(len(backbone.blocks)):
            expected, found = by_prompt(alone, layer), by_prompt(other, layer)
            assert expected.keys() == found.keys()
            for prompt, vector in expected.items():
                torch.testing.assert_close(
                    torch.tensor(found[prompt]), torch.tensor(vector), rtol=1e-4, atol=1e-5
                )


def test_only_the_last_state_knows_the_final_norm():
    backbone, samples = tiny_backbone("llama"), samples_of(3, 3)
    normed, raw = (prompt_states(backbone, samples, 3, normed=flag).vectors for flag in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(normed[:-1], raw[:-1], strict=True))
    torch.testing.assert_close(backbone.decoder.norm(raw[-1]), normed[-1])
    assert not torch.allclose(raw[-1], normed[-1], rtol=0.1)


def test_a_state_that_is_not_finite_names_its_block_and_prompt():
    backbone, samples = tiny_backbone("llama"), samples_of(3, 3)
    backbone.model.get_input_embeddings().weight[samples[1].ids[0]] = float("inf")
    with pytest.raises(StudyError, match=r"block 0.*p1"):
        prompt_states(backbone, samples[1:2], 3, normed=True)
    assert not any(module._forward_hooks for module in backbone.model.modules())


def states_of(seed: int, ids: list[str], layers: int = 2, hidden: int = 5) -> PromptStates:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(ids), hidden)
    return PromptStates(tuple(ids), tuple(torch.randn(shape, generator=generator) + 1 for _ in range(layers)))


@pytest.mark.parametrize("average", ["angle", "cosine"])
@given(seed=st.integers(0, 10**6), n=st.integers(2, 6), m=st.integers(2, 5))
def test_angles_are_a_loop_over_pairs(average, seed, n, m):
    normal = states_of(seed, [f"n{i}" for i in range(n)])
    malicious = states_of(seed + 1, [f"m{i}" for i in range(m)])
    found = mean_angles(normal, malicious, average)
    for layer, values in enumerate(found):
        expected = oracle.pair_means(by_prompt(normal, layer), by_prompt(malicious, layer), average)
        assert values == pytest.approx(expected, abs=1e-9)


def test_a_prompt_of_both_sides_is_not_paired_with_itself():
    normal = states_of(1, ["a", "b", "c"])
    malicious = PromptStates(("c", "d"), tuple(torch.stack([v[2], v[0] * 2]) for v in normal.vectors))
    (found, *_) = mean_angles(normal, malicious, "angle")
    expected = oracle.pair_means(by_prompt(normal, 0), by_prompt(malicious, 0))
    assert found == pytest.approx(expected, abs=1e-6)  # d is parallel to a: an arc cosine near 1


def test_two_equal_sides_have_no_gap_at_all():
    normal = states_of(1, ["a", "b", "c", "d"])
    for values in mean_angles(normal, normal, "angle"):
        assert values.normal_malicious == values.normal_normal == values.malicious_malicious


def test_a_single_prompt_has_no_angle_within():
    values, _ = mean_angles(states_of(1, ["a", "b"]), states_of(2, ["c"]), "angle")
    assert math.isnan(values.malicious_malicious) and not math.isnan(values.normal_malicious)


def test_known_angles():
    a, b = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    every = torch.ones(2, 2, dtype=torch.bool)
    assert mean_angle(a, b, every, "angle") == pytest.approx((0 + 45 + 90 + 45) / 4)
    mean = (1 + 0.5**0.5 + 0 + 0.5**0.5) / 4
    assert mean_angle(a, b, every, "cosine") == pytest.approx(math.degrees(math.acos(mean)))


def test_chunks_change_nothing(monkeypatch):
    a, b = torch.randn(7, 4), torch.randn(5, 4)
    counted = torch.rand(7, 5) < 0.5
    whole = mean_angle(a, b, counted, "angle")
    monkeypatch.setattr(angles, "CHUNK", 3)
    assert mean_angle(a, b, counted, "angle") == pytest.approx(whole, abs=1e-12)
