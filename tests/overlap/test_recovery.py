"""Recovery measures must equal their literal definitions, and be perfect for scores that know the planted region."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.formats.region import Region
from safety_regions.overlap.chance import pair_iou
from safety_regions.overlap.curves import auroc, average_precision
from safety_regions.overlap.recovery import AREAS, recovery_of_region, recovery_of_scores, weight_flags
from safety_regions.regions.select import select_region
from tests.regions.small_regions import METADATA, write_scores

SHAPES = {"layers.0.q": (6, 8), "layers.0.down": (4, 10), "layers.1.q": (6, 8)}
few = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12)


@given(few)
def test_auroc_is_the_chance_to_outscore(pairs):
    scores, truth = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    wins = [float(x > y) + (x == y) / 2 for x in scores[truth] for y in scores[~truth]]
    assert auroc(scores, truth) == (pytest.approx(np.mean(wins)) if wins else None)


@given(few)
def test_average_precision_is_the_area_in_steps(pairs):
    scores, truth = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    area, before = 0.0, 0.0
    for bar in sorted(set(scores), reverse=True):
        taken = scores >= bar
        recall = truth[taken].sum() / max(truth.sum(), 1)
        area, before = area + (recall - before) * truth[taken].mean(), recall
    assert average_precision(scores, truth) == (pytest.approx(area) if truth.any() else None)


def planted(seed=1, fraction=0.25):
    """Return a truth of exactly ``fraction`` of each matrix, and scores that are higher inside it."""
    rng = np.random.default_rng(seed)
    truth, scores = {}, {}
    for where, shape in SHAPES.items():
        order = rng.permutation(np.prod(shape)).reshape(shape)
        truth[where] = order < int(fraction * np.prod(shape))
        scores[where] = (truth[where] + rng.random(shape) / 2).astype(np.float32)
    return truth, scores


def keep_all(scores):
    return {where: np.ones(values.shape, bool) for where, values in scores.items()}


def test_an_oracle_recovers_a_plant_of_the_selected_size_perfectly(tmp_path):
    truth, scores = planted()
    path = tmp_path / "scores.parquet"
    write_scores(path, "weight", scores, {"matrix": 1.0}, keep_all(scores))
    found = recovery_of_region(weight_flags(select_region(path, "matrix", 0.25), SHAPES), truth, "matrix")
    assert found["precision"] == found["recall"] == found["iou"] == 1 and found["chance"] < 0.2
    assert found["n_truth"] == found["n_selected"] == sum(int(0.25 * a * b) for a, b in SHAPES.values())
    areas = recovery_of_scores(path, truth)
    assert (areas["auroc"], areas["auroc_within"], areas["average_precision"]) == pytest.approx((1, 1, 1))
    assert areas["chance_auroc"] == pytest.approx(0.5) and areas["chance_average_precision"] == pytest.approx(
        0.25
    )


def test_noise_recovers_what_chance_gives(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"layers.0.q": (200, 100)}
    truth = {where: rng.random(shape) < 0.1 for where, shape in shapes.items()}
    region = Region.pack({where: rng.random(shape) < 0.05 for where, shape in shapes.items()}, METADATA)
    found = recovery_of_region(weight_flags(region, shapes), truth, "matrix")
    assert found["precision"] == pytest.approx(found["prevalence"], abs=0.03)
    assert found["iou"] == pytest.approx(found["chance"], abs=0.01)
    assert auroc(rng.random(20000), truth["layers.0.q"].ravel()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("n_layers", [4, 40])
def test_chance_draws_whole_layers(n_layers):
    """A random layer is the planted one with probability 1 / n: E[IoU] is 1 / n, not the ratio of expectations."""
    shapes = {f"layers.{i}.q": (3, 4) for i in range(n_layers)}
    first = {where: np.full(shape, where == "layers.0.q") for where, shape in shapes.items()}
    found = recovery_of_region(first, first, "global", whole_layers=True)
    assert found["iou"] == 1 and found["chance"] == pytest.approx(1 / n_layers)
    two = {where: np.full(shape, where in ("layers.0.q", "layers.1.q")) for where, shape in shapes.items()}
    expected = pair_iou((((2, 2), n_layers, n_layers),))
    found = recovery_of_region(two, two, "global", whole_layers=True)
    assert found["chance"] == pytest.approx(expected)


def test_chance_of_whole_layers_leaves_out_those_that_were_removed():
    shapes = {f"layers.{i}.q": (3, 4) for i in range(4)}
    layers = [{w: np.full(s, w == f"layers.{i}.q") for w, s in shapes.items()} for i in range(4)]
    assert recovery_of_region(layers[0], layers[0], "global", layers[1], True)["chance"] == pytest.approx(
        1 / 3
    )
    assert recovery_of_region(layers[0], layers[1], "global", layers[1], True)["chance"] == 0


@pytest.mark.parametrize("scope", ["matrix", "global"])
def test_chance_of_a_refined_region_is_what_random_regions_of_the_rest_give(scope):
    rng = np.random.default_rng(5)
    shapes = {"layers.0.q": (60, 40), "layers.1.q": (60, 40)}
    truth = {where: rng.random(shape) < 0.2 for where, shape in shapes.items()}
    removed = {
        where: (rng.random(shape) < 0.5) & (truth[where] | (rng.random(shape) < 0.3))
        for where, shape in shapes.items()
    }
    region = {where: (rng.random(shape) < 0.1) & ~removed[where] for where, shape in shapes.items()}
    found = recovery_of_region(region, truth, scope, removed)
    parts = [[where] for where in shapes] if scope == "matrix" else [list(shapes)]
    ious = []
    for _ in range(400):
        both = size = 0
        for part in parts:
            free = np.concatenate([truth[w][~removed[w]] for w in part])
            n = sum(int(region[w].sum()) for w in part)
            both, size = both + int(rng.choice(free, n, replace=False).sum()), size + n
        ious.append(both / (sum(int(f.sum()) for f in truth.values()) + size - both))
    assert abs(found["chance"] - np.mean(ious)) < 4.5 * np.std(ious) / np.sqrt(len(ious)) + 2e-4
    assert found["chance"] < 0.9 * recovery_of_region(region, truth, scope)["chance"], (
        "the removed units matter"
    )


def test_neurons_and_layers_are_scored_as_their_weights(tmp_path):
    truth = {where: np.zeros(shape, bool) for where, shape in SHAPES.items()}
    truth["layers.0.q"][2], truth["layers.0.down"][:, 3] = True, True
    neurons = {
        "layers.0.q": np.arange(6) == 2,
        "layers.0.down": np.arange(10) == 3,
        "layers.1.q": np.zeros(6),
    }
    scores = {where: values.astype(np.float32) for where, values in neurons.items()}
    write_scores(tmp_path / "n.parquet", "neuron", scores, {"matrix": 1.0}, keep_all(scores))
    assert recovery_of_scores(tmp_path / "n.parquet", truth)["auroc"] == 1
    layers = {"layers": np.array([0, 1], np.float32)}
    write_scores(tmp_path / "l.parquet", "layer", layers, {"global": 1.0}, keep_all(layers))
    second = {where: np.full(shape, where.startswith("layers.1")) for where, shape in SHAPES.items()}
    areas = recovery_of_scores(tmp_path / "l.parquet", second)
    assert (areas["auroc"], areas["auroc_within"], areas["average_precision"]) == (1, None, 1)
    assert areas["chance_auroc"] is None, "whole layers: nothing to permute within a projection"


def test_areas_need_all_scores(tmp_path):
    truth, scores = planted()
    stored = {where: values >= 1 for where, values in scores.items()}  # only the planted units are stored
    write_scores(tmp_path / "s.parquet", "weight", scores, {"matrix": 0.25}, stored)
    assert recovery_of_scores(tmp_path / "s.parquet", truth) == dict.fromkeys(AREAS)


@pytest.mark.slow
def test_areas_by_chance_are_those_of_scores_permuted_within_projections(tmp_path):
    """Scores that know only the projection, and a truth that lies in some: no unit is found, and AUROC is not 0.5."""
    rng = np.random.default_rng(2)
    share = {"layers.0.q": 0.5, "layers.0.down": 0.1, "layers.1.q": 0.0}
    truth = {where: rng.random(shape) < share[where] for where, shape in SHAPES.items()}
    scores = {
        where: (rng.random(shape) + 2 * share[where]).astype(np.float32) for where, shape in SHAPES.items()
    }
    write_scores(tmp_path / "s.parquet", "weight", scores, {"matrix": 1.0}, keep_all(scores))
    found = recovery_of_scores(tmp_path / "s.parquet", truth)
    flags = np.concatenate([f.ravel() for f in truth.values()])
    drawn = [
        (auroc(mixed, flags), average_precision(mixed, flags))
        for mixed in (
            np.concatenate([rng.permutation(s.ravel()) for s in scores.values()]) for _ in range(3000)
        )
    ]
    aurocs, precisions = np.array(drawn).T
    assert abs(found["chance_auroc"] - aurocs.mean()) < 4.5 * aurocs.std() / np.sqrt(len(aurocs))
    assert found["chance_auroc"] > 0.7, "the projections alone"
    assert abs(found["chance_average_precision"] - precisions.mean()) < 0.04, "expected counts at each score"


def test_unscored_projections_move_the_auroc_by_chance(tmp_path):
    """s t / 2 + s (1 - t) + (1 - s) (1 - t) / 2, with s and t the scored shares of the truth and of the rest."""
    rng = np.random.default_rng(3)
    shapes = {"layers.0.q": (40, 30), "layers.0.gate": (40, 30)}
    truth = {"layers.0.q": rng.random((40, 30)) < 0.3, "layers.0.gate": rng.random((40, 30)) < 0.1}
    scores = {"layers.0.q": rng.random(40).astype(np.float32)}
    write_scores(tmp_path / "n.parquet", "neuron", scores, {"matrix": 1.0}, {"layers.0.q": np.ones(40, bool)})
    s = truth["layers.0.q"].sum() / sum(f.sum() for f in truth.values())
    t = (~truth["layers.0.q"]).sum() / sum((~f).sum() for f in truth.values())
    found = recovery_of_scores(tmp_path / "n.parquet", truth)
    assert found["chance_auroc"] == pytest.approx(s * t / 2 + s * (1 - t) + (1 - s) * (1 - t) / 2)
    assert set(shapes) == set(truth)
