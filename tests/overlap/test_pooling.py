"""Pooled scores must equal their literal definition, find what they know, and give what permutations give by chance."""

from itertools import pairwise

import numpy as np
import pytest

from safety_regions.overlap.curves import auroc, average_precision
from safety_regions.overlap.pooling import POOLED, pool_units, pooled_areas
from safety_regions.overlap.recovery import recovery_of_scores
from safety_regions.units.addresses import parse_address
from tests.regions.small_regions import write_scores

HIDDEN, NEURONS, BLOCKS = 6, 40, 3
SHAPES = {
    f"layers.{block}.{projection}": shape
    for block in range(BLOCKS)
    for projection, shape in {
        "q": (HIDDEN, HIDDEN),
        "gate": (NEURONS, HIDDEN),
        "up": (NEURONS, HIDDEN),
        "down": (HIDDEN, NEURONS),
    }.items()
}
UNSCORED = ("layers.1.down", "layers.2.up", "layers.2.down")


def drawn(rng, shares=(0.2, 0.2, 0.2)):
    """Return scores of all weights, and neurons planted in a fraction of each block, as flags of weights."""
    scores = {where: rng.normal(size=shape) for where, shape in SHAPES.items()}
    truth = {where: np.zeros(shape, bool) for where, shape in SHAPES.items()}
    for block, share in enumerate(shares):
        chosen = rng.permutation(NEURONS)[: int(share * NEURONS)]
        truth[f"layers.{block}.up"][chosen], truth[f"layers.{block}.down"][:, chosen] = True, True
    return scores, truth


def literal_neurons(scores, truth):
    """Sum the scored weights of each neuron one by one."""
    found = []
    for block in range(BLOCKS):
        up, down = f"layers.{block}.up", f"layers.{block}.down"
        for k in range(NEURONS):
            own = [scores[up][k, i] for i in range(HIDDEN)] + [scores[down][i, k] for i in range(HIDDEN)]
            own = [value for value in own if value > -np.inf]
            found.append((sum(own) if own else -np.inf, bool(truth[up][k, 0] and truth[down][0, k]), block))
    return found


def literal_layers(scores, truth):
    """Average the scored weights of each layer one by one."""
    found = []
    for block in range(BLOCKS):
        homes = [where for where in SHAPES if parse_address(where).layer == block]
        own = [value for where in homes for value in scores[where].ravel().tolist() if value > -np.inf]
        found.append(
            (sum(own) / len(own) if own else -np.inf, all(truth[where].all() for where in homes), block)
        )
    return found


@pytest.mark.parametrize("unscored", [(), UNSCORED, ("layers.1.gate", *(w for w in SHAPES if "s.0." in w))])
def test_pooled_scores_are_those_of_the_weights_of_each_unit(unscored):
    scores, truth = drawn(np.random.default_rng(1))
    scores |= {where: np.full(SHAPES[where], -np.inf) for where in unscored}
    layers = {where: np.full(shape, ".1." in where) for where, shape in SHAPES.items()}
    for kind, flags, literal in (("neuron", truth, literal_neurons), ("layer", layers, literal_layers)):
        units = pool_units(scores, flags, kind)
        values, planted, layer = zip(*literal(scores, flags), strict=True)
        assert units.scores == pytest.approx(np.array(values), rel=1e-12)
        assert units.planted.tolist() == list(planted) and units.layer.tolist() == list(layer)
    assert pool_units(scores, truth, "weight") is None


@pytest.mark.slow
def test_scores_that_know_the_neurons_find_them_all_and_noise_none():
    rng = np.random.default_rng(2)
    aurocs, precisions = [], []
    for _ in range(60):
        scores, truth = drawn(rng)
        knowing = {where: values + 100 * truth[where] for where, values in scores.items()}
        found = pooled_areas(knowing, truth, "neuron")
        assert (found["pooled_auroc"], found["pooled_average_precision"]) == pytest.approx((1, 1))
        found = pooled_areas(scores, truth, "neuron")
        assert found["pooled_chance_auroc"] == pytest.approx(0.5), "as many neurons in every block"
        aurocs.append(found["pooled_auroc"])
        precisions.append(found["pooled_average_precision"] - found["pooled_chance_average_precision"])
    for values, expected in ((aurocs, 0.5), (precisions, 0)):
        assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(len(values))


def test_by_chance_are_scores_of_neurons_permuted_within_their_block():
    """Blocks of unlike scores and unlike shares, with ties: the blocks alone give an AUROC other than 0.5."""
    rng = np.random.default_rng(3)
    scores, truth = drawn(rng, shares=(0.5, 0.2, 0.05))
    scores = {where: np.round(values - parse_address(where).layer, 0) for where, values in scores.items()}
    found, units = pooled_areas(scores, truth, "neuron"), pool_units(scores, truth, "neuron")
    blocks = [units.scores[units.layer == block] for block in range(BLOCKS)]
    mixed = [np.concatenate([rng.permutation(values) for values in blocks]) for _ in range(2000)]
    for name, area in (
        ("pooled_chance_auroc", auroc),
        ("pooled_chance_average_precision", average_precision),
    ):
        values = np.array([area(one, units.planted) for one in mixed])
        # The package draws 200 permutations, this test 2000.
        assert abs(found[name] - values.mean()) < 4.5 * values.std() * np.sqrt(1 / 200 + 1 / 2000)
    assert found["pooled_chance_auroc"] > 0.6


def test_a_method_that_scores_neurons_keeps_their_order(tmp_path):
    rng = np.random.default_rng(4)
    _, truth = drawn(rng)
    own = {w: rng.random(NEURONS).astype(np.float32) for w in SHAPES if w.endswith(("up", "down"))}
    path = write_scores(tmp_path / "neurons.parquet", "neuron", own, {"matrix": 1.0})
    units = pool_units(dict.fromkeys(SHAPES, np.zeros(1)) | spread(own), truth, "neuron")
    sums = np.concatenate([own[f"layers.{b}.up"] + own[f"layers.{b}.down"] for b in range(BLOCKS)])
    assert all(a <= b for a, b in pairwise(units.scores[np.argsort(sums)]))
    found = recovery_of_scores(path, truth, "neuron")
    assert found["pooled_auroc"] == pytest.approx(auroc(sums, units.planted))


def spread(own):
    return {
        w: np.tile(v, (HIDDEN, 1)) if w.endswith("down") else np.tile(v[:, None], (1, HIDDEN))
        for w, v in own.items()
    }


def test_a_method_that_scores_layers_keeps_their_order_and_cannot_tell_neurons_apart(tmp_path):
    own = {"layers": np.array([0.1, 0.3, 0.2], np.float32)}
    path = write_scores(tmp_path / "layers.parquet", "layer", own, {"global": 1.0})
    layers = {where: np.full(shape, ".1." in where) for where, shape in SHAPES.items()}
    found = recovery_of_scores(path, layers, "layer")
    assert found["pooled_auroc"] == found["pooled_average_precision"] == 1
    assert found["pooled_chance_auroc"] is None and found["pooled_chance_average_precision"] is None
    _, truth = drawn(np.random.default_rng(5))
    assert recovery_of_scores(path, truth, "neuron")["pooled_auroc"] == pytest.approx(0.5)


def test_weights_that_were_planted_are_not_pooled(tmp_path):
    scores, truth = drawn(np.random.default_rng(6))
    path = write_scores(tmp_path / "weights.parquet", "weight", scores, {"matrix": 1.0})
    found = recovery_of_scores(path, truth)
    assert found["auroc"] is not None and [found[name] for name in POOLED] == [None] * 4
