"""Magnitude and random must follow their definitions: they read no prompt, and random's draws are independent."""

from itertools import combinations

import pytest
import torch

from safety_regions.methods import magnitude, random
from safety_regions.scoring.samples import Samples
from tests.methods.test_weights import run, samples_of
from tests.oracles import blind as oracle
from tests.tiny import FAMILIES, tiny_backbone

BACKBONE = tiny_backbone("qwen3")


def draw(samples, seed: int = 0) -> dict[str, torch.Tensor]:
    return run(random, BACKBONE, samples, {"seed": seed})


def flat(scores: dict[str, torch.Tensor]) -> list[float]:
    return torch.cat([values.double().flatten() for values in scores.values()]).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_magnitude_is_the_size_of_each_weight(family, dtype):
    backbone = tiny_backbone(family, dtype=dtype)
    found, expected = run(magnitude, backbone, samples_of(), {}), oracle.magnitude(backbone)
    assert list(found) == list(expected)
    assert all(torch.equal(found[where].double(), values) for where, values in expected.items())


def test_magnitude_looks_at_no_prompt():
    assert magnitude.gather(BACKBONE, Samples(samples_of()), {}) == {}


def test_random_scores_are_uniform():
    scores = draw(samples_of())
    assert oracle.distance_from_uniform(flat(scores)) < 2.7
    for values in scores.values():
        assert values.min() >= 0 and values.max() < 1
        assert oracle.distance_from_uniform(values.flatten().tolist()) < 2.7


def test_the_same_set_has_the_same_scores_in_any_order():
    samples = samples_of()
    first = draw(samples)
    texts = [sample._replace(ids=[7, 8, 9], prompt_length=1) for sample in samples]
    for again in (draw(samples), draw(samples[::-1]), draw(texts)):
        assert all(torch.equal(again[where], values) for where, values in first.items())


def test_other_sets_and_other_seeds_are_drawn_independently():
    """Draws must be independent even for a set and its subsets."""
    samples = samples_of()
    draws = [
        draw(samples),
        draw(samples[:-1]),
        draw(samples[1:]),
        draw(samples, seed=1),
        draw(samples, seed=2),
    ]
    for first, second in combinations(map(flat, draws), 2):
        assert abs(oracle.correlation(first, second)) < 5


def test_the_matrices_of_one_draw_are_independent():
    scores = draw(samples_of())
    alike = [
        values.flatten().tolist() for where, values in scores.items() if where.endswith((".gate", ".up"))
    ]
    for first, second in combinations(alike, 2):
        assert abs(oracle.correlation(first, second)) < 5


def test_regions_of_two_draws_overlap_by_chance():
    first, second = draw(samples_of()), draw(samples_of(4))
    shared, mean, variance = 0, 0.0, 0.0
    for where, values in first.items():
        rows, columns = values.shape
        regions = [oracle.best_of_rows(scores[where].tolist(), columns // 5) for scores in (first, second)]
        expected, deviation = oracle.chance_overlap(rows, columns, columns // 5)
        shared, mean, variance = (
            shared + len(set.intersection(*regions)),
            mean + expected,
            variance + deviation**2,
        )
    assert abs(shared - mean) < 5 * variance**0.5
