"""Controls have the region's size in every scope unit, and are what their names say."""

import numpy as np
import pytest

from safety_regions.behaviour import controls
from safety_regions.behaviour.edit import as_array
from safety_regions.formats.region import Region
from safety_regions.units.addresses import LAYERS, STRATA
from tests.behaviour.regions import outputs_of, some_units
from tests.oracles.ranks import projector
from tests.tiny import tiny_backbone

CASES = [
    *(("weight", s) for s in ("row", "matrix", "layer", "global")),
    *(("neuron", s) for s in ("matrix", "layer")),
    *(("head", s) for s in ("layer", "global")),
]


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("llama3")


def norms(backbone, region):
    weights = {where: weight.detach().numpy() for where, weight in backbone.weights()}
    return controls.norms_of(region, weights.__getitem__, backbone.shapes)


def sizes(region: Region):
    """Number of units in every scope unit."""
    scope = region.metadata["scope"]
    if scope == "row":
        return {where: region.flags(where).sum(axis=1).tolist() for where in region.shapes}
    found = {}
    for where in region.shapes:
        found[STRATA[scope](where)] = found.get(STRATA[scope](where), 0) + region.selected_at[where]
    return found


def everything(region, where="all"):
    return np.concatenate([region.flags(where).ravel() for where in region.shapes])


@pytest.mark.parametrize(("granularity", "scope"), CASES)
def test_sizes_are_those_of_the_region(backbone, granularity, scope):
    region = some_units(backbone, granularity, scope)
    for control in (
        controls.random_region(region, 1),
        controls.largest(region, norms(backbone, region)),
        controls.part_of(region, controls.largest(region, norms(backbone, region)), 1),
    ):
        assert sizes(control) == sizes(region)
        assert control.metadata == region.metadata
        assert control.shapes == region.shapes


@pytest.mark.parametrize(("granularity", "scope"), CASES)
def test_random_draws_differ_and_repeat(backbone, granularity, scope):
    region = some_units(backbone, granularity, scope)
    one, again, two = (controls.random_region(region, draw) for draw in (1, 1, 2))
    assert (everything(one) == everything(again)).all()
    assert (everything(one) != everything(two)).any()


@pytest.mark.parametrize("scope", ["row", "matrix"])
def test_draws_of_two_sets_are_independent(backbone, scope):
    """Otherwise the mean over sets of controls would vary more than the mean over sets of regions."""
    region = some_units(backbone, scope=scope)
    named = [
        Region(region.masks, region.shapes, region.metadata | {"name": name}, region.available)
        for name in "ab"
    ]
    one, two = (everything(controls.random_region(r, 1)) for r in named)
    share = everything(region).mean()
    assert (one & two).mean() == pytest.approx(share**2, rel=0.15)


@pytest.mark.slow
def test_random_units_are_uniform(backbone):
    """Every unit of a row is drawn equally often, within Monte Carlo error."""
    region, n = some_units(backbone, scope="row"), 300
    drawn = sum(
        controls.random_region(region, draw).flags("layers.1.q").astype(int) for draw in range(1, n + 1)
    )
    p = region.flags("layers.1.q").mean(axis=1, keepdims=True)
    z = (drawn - n * p) / np.sqrt(np.maximum(n * p * (1 - p), 1))
    assert abs(z.mean()) < 0.1
    assert np.abs(z).max() < 5


def test_the_largest_are_the_largest_of_every_row(backbone):
    region = some_units(backbone, scope="row")
    found, weights = controls.largest(region, norms(backbone, region)), norms(backbone, region)
    for where in region.shapes:
        for inside, chosen, norm in zip(region.flags(where), found.flags(where), weights[where], strict=True):
            k = int(inside.sum())
            assert set(np.flatnonzero(chosen)) == set(np.argsort(-norm, kind="stable")[:k])


def test_the_largest_of_all_layers_together(backbone):
    region = some_units(backbone, scope="global")
    found, weights = controls.largest(region, norms(backbone, region)), norms(backbone, region)
    joined = np.concatenate([weights[where].ravel() for where in region.shapes])
    expected = np.sort(joined)[-region.n_selected :].sum()
    assert joined[everything(found)].sum() == pytest.approx(expected)


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_matched_draws_have_the_histogram_of_the_region(backbone, granularity):
    region = some_units(backbone, granularity)
    large = controls.largest(region, norms(backbone, region))
    control, weights = controls.matched_region(large, norms(backbone, large), 1), norms(backbone, large)
    for where in region.shapes:
        norm = weights[where].ravel()
        borders = np.quantile(norm, np.arange(1, 10) / 10)
        counts = [
            np.bincount(
                np.searchsorted(borders, norm[r.flags(where).ravel()], side="right"), minlength=10
            ).tolist()
            for r in (large, control)
        ]
        assert counts[0] == counts[1]
    assert (everything(control) != everything(large)).any()
    # A plain random draw would have smaller norms.
    mean = {
        name: np.mean([weights[w].ravel()[r.flags(w).ravel()].mean() for w in region.shapes])
        for name, r in (("region", large), ("matched", control), ("random", controls.random_region(large, 1)))
    }
    assert mean["random"] < mean["region"] - 4 * (mean["region"] - mean["matched"])


def test_norms_of_neurons_are_those_of_their_weights(backbone):
    region = some_units(backbone, "neuron")
    found = norms(backbone, region)
    weights = dict(backbone.weights())
    assert found["layers.2.up"][3] == pytest.approx(float(weights["layers.2.up"][3].norm()), rel=1e-6)
    assert found["layers.2.down"][3] == pytest.approx(float(weights["layers.2.down"][:, 3].norm()), rel=1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3"])
def test_norms_of_heads_are_those_of_the_weights_that_they_own_alone(family):
    """Heads of Llama 2 have their own rows of k and v; in the other two, two heads share them."""
    backbone = tiny_backbone(family)
    region, h = some_units(backbone, "head"), backbone.head_dim
    found, weights = norms(backbone, region), dict(backbone.weights())
    rows = slice(2 * h, 3 * h)
    own = [weights["layers.1.q"][rows], weights["layers.1.o"][:, rows]]
    own += [weights["layers.1.k"][rows], weights["layers.1.v"][rows]] if family == "llama" else []
    expected = np.sqrt(sum(float(part.double().square().sum()) for part in own))
    assert found["layers.1.heads"][2] == pytest.approx(expected, rel=1e-6)


def heads(*inside, n=32):
    return Region.pack(
        {"layers.0.heads": np.isin(np.arange(n), inside)},
        {"granularity": "head", "scope": "global", "fraction": 0.1},
    )


def test_few_heads_are_matched_in_fewer_bins():
    """Of 32 heads, 4 bins of 8; with deciles, most heads could only be matched by themselves or two others."""
    norms = {"layers.0.heads": np.arange(32.0)}
    region, drawn = heads(3, 30), set()
    for draw in range(1, 60):
        low, high = np.flatnonzero(controls.matched_region(region, norms, draw).flags("layers.0.heads"))
        assert low < 8 and high >= 24
        drawn.add((low, high))
    assert len({low for low, _ in drawn}) > 4
    few = controls.matched_region(heads(0, n=4), {"layers.0.heads": np.arange(4.0)}, 2)
    assert few.n_selected == 1


def test_the_norm_of_a_layer_is_that_of_all_its_weights(backbone):
    region = some_units(backbone, "layer")
    weights = [float(w.norm()) for where, w in backbone.weights() if where.startswith("layers.1.")]
    assert norms(backbone, region)[LAYERS][1] == pytest.approx(np.linalg.norm(weights), rel=1e-6)


def layers(*inside, n=6):
    flags = np.zeros(n, bool)
    flags[list(inside)] = True
    return Region.pack({LAYERS: flags}, {"granularity": "layer", "scope": "global", "fraction": 0.1})


def test_ranges_of_layers_are_compared_with_all_other_ranges():
    region = layers(2, 3)
    assert controls.n_draws(region, "random", 19) == 4
    drawn = [tuple(np.flatnonzero(controls.random_region(region, d).flags(LAYERS))) for d in range(1, 5)]
    assert sorted(drawn) == [(0, 1), (1, 2), (3, 4), (4, 5)]


def test_scattered_layers_are_compared_with_all_other_sets():
    assert controls.n_draws(layers(0, 3), "random", 99) == 14
    assert controls.n_draws(layers(0, 3), "matched", 99) == 0


def test_random_subspaces_lie_in_the_outputs_and_differ(backbone):
    """Of up, which has more outputs than inputs, they must lie where the outputs do."""
    region = some_units(backbone, "rank")
    weights = dict(backbone.weights())
    made = controls.Maker(region, lambda where: as_array(weights[where]), lambda where: None, list(weights))
    one, again, two = (made.make("random", draw) for draw in (1, 1, 2))
    assert one.selected_at == region.selected_at and one.metadata == region.metadata
    for where, basis in one.bases.items():
        outputs = projector(outputs_of(weights[where]))
        assert np.abs(outputs @ basis - basis).max() < 1e-5
        assert np.array_equal(basis, again.bases[where]) and not np.allclose(basis, two.bases[where])
    assert [controls.n_draws(region, kind, 3) for kind in ("random", "matched", "magnitude", "change")] == [
        3,
        0,
        0,
        0,
    ]


def test_an_empty_region_has_no_controls():
    assert controls.n_draws(layers(), "random", 19) == 0


def test_a_part_lies_in_the_region(backbone):
    region = some_units(backbone, scope="row", share=0.5)
    smaller = Region.pack(
        {
            where: region.flags(where) & (np.arange(shape[1]) % 3 == 0)
            for where, shape in region.shapes.items()
        },
        region.metadata,
    )
    part = controls.part_of(region, smaller, 1)
    assert sizes(part) == sizes(smaller)
    assert not (everything(part) & ~everything(region)).any()
    assert (everything(part) != everything(smaller)).any()
