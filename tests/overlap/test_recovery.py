"""Recovery measures must equal their literal definitions, and be perfect for scores that know the planted region."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.formats.region import Region, write_region
from safety_regions.overlap.chance import pair_iou
from safety_regions.overlap.curves import auroc, average_precision
from safety_regions.overlap.few_units import chance_of_truth
from safety_regions.overlap.pooling import POOLED
from safety_regions.overlap.recovery import (
    AREAS,
    Units,
    areas_of_scores,
    measure_recovery,
    recovery_of_region,
    recovery_of_scores,
    sampled_scores,
    weight_flags,
    weight_scores,
)
from safety_regions.regions.refine import subtract_region
from safety_regions.regions.select import select_region
from safety_regions.scoring.sample import sampled_units
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


def layers(*inside, n=4):
    metadata = METADATA | {"granularity": "layer", "scope": "global"}
    return Region.pack({"layers": np.isin(np.arange(n), inside)}, metadata)


def heads(inside, scope):
    """Some of 8 heads, 4 in each of two layers."""
    flags = np.isin(np.arange(8), inside)
    metadata = METADATA | {"granularity": "head", "scope": scope}
    return Region.pack({"layers.0.heads": flags[:4], "layers.1.heads": flags[4:]}, metadata)


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
    found = recovery_of_region(first, first, "global", units=Units(layers(0, n=n_layers)))
    assert found["iou"] == 1 and found["chance"] == pytest.approx(1 / n_layers)
    two = {where: np.full(shape, where in ("layers.0.q", "layers.1.q")) for where, shape in shapes.items()}
    expected = pair_iou((((2, 2), n_layers, n_layers),))
    found = recovery_of_region(two, two, "global", units=Units(layers(0, 1, n=n_layers)))
    assert found["chance"] == pytest.approx(expected)
    none = recovery_of_region(two, two, "global", units=Units(layers(n=n_layers)))
    assert none["chance"] == 0


def test_chance_of_whole_layers_leaves_out_those_that_were_removed():
    shapes = {f"layers.{i}.q": (3, 4) for i in range(4)}
    flags = [{w: np.full(s, w == f"layers.{i}.q") for w, s in shapes.items()} for i in range(4)]
    units = Units(layers(0), layers(1))
    rest = {where: ~removed for where, removed in flags[1].items()}
    assert recovery_of_region(flags[0], flags[0], "global", rest, units)["chance"] == pytest.approx(1 / 3)
    assert recovery_of_region(flags[0], flags[1], "global", rest, units)["chance"] == 0


OF_LAYER = {"q": (8, 3), "k": (4, 3), "v": (4, 3), "o": (3, 8)}
HEADED = {f"layers.{i}.{p}": shape for i in range(2) for p, shape in OF_LAYER.items()}


@pytest.mark.parametrize("removed", [None, (0, 5)])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_chance_of_heads_is_the_mean_over_all_sets_of_as_many_heads(scope, removed):
    """Two heads share a key-value head: their rows of k and v count only if both are drawn."""
    rng = np.random.default_rng(4)
    truth = {where: rng.random(shape) < 0.3 for where, shape in HEADED.items()}
    region = heads((1, 2, 7), scope)
    other = None if removed is None else heads(removed, scope)
    free = [head for head in range(8) if head not in (removed or ())]
    sets = list(combinations(free, 3))
    if scope == "layer":  # two heads of the first layer and one of the second
        sets = [chosen for chosen in sets if sum(head < 4 for head in chosen) == 2]
    ious = []
    for chosen in sets:
        drawn = weight_flags(heads(chosen, scope), HEADED)
        both = sum((drawn[w] & truth[w]).sum() for w in truth)
        ious.append(both / sum((drawn[w] | truth[w]).sum() for w in truth))
    found = recovery_of_region(weight_flags(region, HEADED), truth, scope, units=Units(region, other))
    exact = scope == "global"
    assert found["chance"] == pytest.approx(
        np.mean(ious), abs=1e-9 if exact else 4.5 * np.std(ious) / np.sqrt(4000)
    )


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
    rest = {where: ~flags for where, flags in removed.items()}
    found = recovery_of_region(region, truth, scope, rest)
    parts = [[where] for where in shapes] if scope == "matrix" else [list(shapes)]
    ious = []
    for _ in range(400):
        both = size = 0
        for part in parts:
            free = np.concatenate([truth[w][rest[w]] for w in part])
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
    of_layers = {"layers": np.array([0, 1], np.float32)}
    write_scores(tmp_path / "l.parquet", "layer", of_layers, {"global": 1.0}, keep_all(of_layers))
    second = {where: np.full(shape, where.startswith("layers.1")) for where, shape in SHAPES.items()}
    areas = recovery_of_scores(tmp_path / "l.parquet", second)
    assert (areas["auroc"], areas["auroc_within"], areas["average_precision"]) == (1, None, 1)
    assert areas["chance_auroc"] is None, "whole layers: nothing to permute within a projection"


def test_heads_cannot_find_feed_forward_neurons_and_chance_knows(tmp_path):
    """From files: a refined region of heads beside a plant in attention, and one in the feed-forward part."""
    shapes = {f"layers.{i}.{p}": s for i in range(2) for p, s in (OF_LAYER | {"up": (5, 3)}).items()}
    scores = {f"layers.{i}.heads": np.arange(4, dtype=np.float32) for i in range(2)}
    path = write_scores(tmp_path / "h.parquet", "head", scores, {"global": 1.0}, weight_shapes=shapes)
    raw, utility = (heads(inside, "layer") for inside in ((0, 1, 4, 5), (0, 7)))
    refined = subtract_region(raw, utility)
    for name, region in {"refined": refined, "utility": utility}.items():
        write_region(tmp_path / name, region)
    of = {"method": "h", "name": "a", "selection": "layer-0.5"}
    given = {
        "truths": {
            "o": Region.pack({w: np.full(s, w.endswith(".o")) for w, s in shapes.items()}, METADATA),
            "up": Region.pack({w: np.full(s, w.endswith(".up")) for w, s in shapes.items()}, METADATA),
        },
        "scores": [(of, path)],
        "regions": [(of | {"refinement": "minus-plain"}, tmp_path / "refined")],
        "removed": [(of | {"name": "plain"}, tmp_path / "utility")],
    }
    in_o, in_up = measure_recovery(**given)
    truth = {w: np.full(s, w.endswith(".o")) for w, s in shapes.items()}
    assert in_o["chance"] == chance_of_truth(refined, utility, truth) > 0
    assert in_o["n_selected"] == 3 * 12 + 2 * 6, "q and o of three heads; k and v of one whole group"
    assert (in_up["iou"], in_up["chance"]) == (0, 0) and in_up["auroc"] < 0.5


def test_chance_leaves_out_projections_that_a_method_does_not_score(tmp_path):
    """Two of the ten neurons of down, which own four weights each: nothing of q is selected, by chance or not."""
    shapes = {"layers.0.q": (6, 8), "layers.0.down": (4, 10)}
    scores = {"layers.0.down": np.arange(10, dtype=np.float32)}
    path = write_scores(tmp_path / "n.parquet", "neuron", scores, {"global": 1.0}, weight_shapes=shapes)
    write_region(tmp_path / "region", select_region(path, "global", 0.2))
    truth = {"layers.0.q": np.ones((6, 8), bool), "layers.0.down": np.arange(40).reshape(4, 10) % 10 > 4}
    of = {"method": "n", "name": "a", "selection": "global-0.2"}
    regions = [(of | {"refinement": "raw"}, tmp_path / "region")]
    (found,) = measure_recovery({"here": Region.pack(truth, METADATA)}, [(of, path)], regions, [])
    assert (found["n_truth"], found["n_selected"], found["intersection"]) == (48 + 20, 8, 8)
    assert found["chance"] == pytest.approx(4 / (68 + 8 - 4))


def test_rows_that_heads_share_are_scored_as_the_lower_head(tmp_path):
    scores = {"layers.0.heads": np.array([3, 1, 2, 4], np.float32), "layers.1.heads": np.zeros(4, np.float32)}
    path = write_scores(tmp_path / "h.parquet", "head", scores, {"global": 1.0})
    found = weight_scores(path, HEADED | {"layers.0.up": (2, 3)})
    found = found.values
    assert found["layers.0.q"][:, 0].tolist() == found["layers.0.o"][0].tolist() == [3, 3, 1, 1, 2, 2, 4, 4]
    assert found["layers.0.k"][:, 1].tolist() == found["layers.0.v"][:, 1].tolist() == [1, 1, 2, 2]
    assert (found["layers.0.up"] == -np.inf).all()
    regions = [select_region(path, "global", n / 8) for n in range(1, 5)]
    for n, region in enumerate(regions, start=1):
        flags = weight_flags(region, HEADED)
        for where in HEADED:
            if where.startswith("layers.0"):
                assert np.array_equal(flags[where], found[where] > 4 - n)


@pytest.mark.parametrize("granularity", ["weight", "layer", "neuron"])
def test_areas_of_a_sample_are_near_those_of_all_scores(granularity, tmp_path):
    """The small matrix has as many sampled weights as the large one, and other scores and shares."""
    rng = np.random.default_rng(0)
    shapes = {
        "layers.0.q": (64, 80),
        "layers.0.up": (400, 500),
        "layers.1.up": (80, 64),
        "layers.1.q": (64, 80),
    }
    share = {where: 0.3 if where == "layers.0.up" else 0.02 for where in shapes}
    truth = {where: rng.random(shape) < share[where] for where, shape in shapes.items()}
    if granularity == "layer":
        truth = {where: np.full(shape, where.startswith("layers.0")) for where, shape in shapes.items()}
    scores = {w: (rng.random(s) + truth[w] / 2 - 4 * share[w]).astype(np.float32) for w, s in shapes.items()}
    write_scores(tmp_path / "all", "weight", scores, {"matrix": 1.0}, keep_all(scores))
    stored = {
        w: np.isin(np.arange(v.size), sampled_units(w, v.shape)).reshape(v.shape) for w, v in scores.items()
    }
    assert all(flags.sum() == 4096 for flags in stored.values())
    write_scores(tmp_path / "sample", "weight", scores, {}, stored)
    found = areas_of_scores(sampled_scores(tmp_path / "sample"), truth, granularity)
    pooled = "layer" if granularity == "layer" else "weight"
    expected = areas_of_scores(weight_scores(tmp_path / "all", shapes), truth, pooled)
    assert [name for name in AREAS if found[name] is None] == [n for n in AREAS if expected[n] is None]
    assert granularity == "layer" or {n for n in AREAS if found[n] is None} == set(POOLED)
    known = [name for name in AREAS if found[name] is not None]
    assert [found[n] for n in known] == pytest.approx([expected[n] for n in known], abs=0.02)
    sample = sampled_scores(tmp_path / "sample").sample
    there = areas_of_scores(weight_scores(tmp_path / "all", shapes), truth, pooled, sample)
    for name in AREAS:  # those of the same weights, but pooled scores need no sample
        assert there[name] == (expected if name in POOLED else found)[name]
    unweighted = auroc(*(np.concatenate([a[w][stored[w]] for w in shapes]) for a in (scores, truth)))
    assert abs(unweighted - expected["auroc"]) > 0.05, "the weights matter"


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
