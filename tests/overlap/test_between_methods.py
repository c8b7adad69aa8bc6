"""Overlaps between methods: what chance is where a method chooses whole layers."""

from itertools import combinations

import numpy as np
import pytest

from safety_regions.formats.expand import expand_region
from safety_regions.formats.region import Region
from safety_regions.overlap.between_methods import overlap_of_methods
from safety_regions.overlap.chance import pair_iou

SHAPES = {f"layers.{i}.{p}": (6, 8) for i in range(4) for p in ("q", "down")}


def layers(*chosen: int, n: int = 4) -> Region:
    metadata = {"granularity": "layer", "scope": "global", "fraction": len(chosen) / n, "backbone": "b"}
    return Region.pack({"layers": np.isin(np.arange(n), chosen)}, metadata | {"refinement": "raw"})


OF_LAYER = {"q": (8, 3), "k": (4, 3), "o": (3, 8), "up": (5, 3)}
HEADED = {f"layers.{i}.{p}": shape for i in range(2) for p, shape in OF_LAYER.items()}


def heads(*inside: int) -> Region:
    """Some of 8 heads, 4 in each of two layers; two share the rows of k."""
    flags = np.isin(np.arange(8), inside)
    metadata = {
        "granularity": "head",
        "scope": "layer",
        "fraction": 0.25,
        "backbone": "b",
        "refinement": "raw",
    }
    return Region.pack({"layers.0.heads": flags[:4], "layers.1.heads": flags[4:]}, metadata)


def weights(density: float, seed: int) -> Region:
    rng = np.random.default_rng(seed)
    metadata = {"granularity": "weight", "scope": "matrix", "fraction": density, "backbone": "b"}
    flags = {where: rng.permutation(48).reshape(6, 8) < 48 * density for where in SHAPES}
    return Region.pack(flags, metadata | {"refinement": "raw"})


def chances(regions: dict[str, Region], shapes=SHAPES) -> dict[tuple, float | None]:
    """(combination, level, layer or projection) -> chance."""
    _, overlap = overlap_of_methods(regions, shapes)
    place = [row["projection"] if row["layer"] is None else row["layer"] for row in overlap.to_pylist()]
    rows = zip(overlap.to_pylist(), place, strict=True)
    return {(row["combination"], row["level"], at): row["chance"] for row, at in rows}


@pytest.mark.parametrize(
    ("first", "second", "chance"),
    [((1,), (1,), 0.25), ((1,), (2,), 0.25), ((1, 2), (2, 3), 7 / 18), ((0,), (1, 2), 0.25)],
)
def test_the_chance_of_two_layer_methods_is_that_of_random_layers(first, second, chance):
    found = chances({"a": layers(*first), "b": layers(*second)})
    at_layer = len(first) * len(second) / 16
    at_layer /= 1 - (1 - len(first) / 4) * (1 - len(second) / 4)
    assert found.pop(("a & b", "model", None)) == pytest.approx(chance)
    for (_, level, _), value in found.items():
        assert value == pytest.approx(at_layer if level == "layer" else chance)


def test_the_chance_of_two_methods_of_heads_is_that_of_random_heads():
    """All pairs of one head in the first layer and two in the second are counted literally."""
    found = chances({"a": heads(0, 5, 6), "b": heads(1, 5, 7)}, HEADED)
    every = [expand_region(heads(a, *b), HEADED) for a in range(4) for b in combinations(range(4, 8), 2)]
    for level, at, inside in (
        ("model", None, list(HEADED)),
        ("layer", 1, [where for where in HEADED if where.startswith("layers.1")]),
        ("projection", "q", ["layers.0.q", "layers.1.q"]),
        ("projection", "k", ["layers.1.k"]),
    ):
        joined = [np.concatenate([region.flags(where).ravel() for where in inside]) for region in every]
        ious = [(x & y).sum() / (x | y).sum() for x in joined for y in joined if (x | y).any()]
        error = 4.5 * np.std(ious) / np.sqrt(4000 * (0.5 if at == "k" else 1))
        assert found["a & b", level, at] == pytest.approx(np.mean(ious), abs=error), (level, at)
    assert found["a & b", "projection", "up"] is None


def test_a_method_of_heads_with_others():
    found = chances({"a": heads(0, 5), "b": heads(1, 6), "c": layers(1, n=2)}, HEADED)
    assert found["a & b & c", "model", None] is None, "no law for two methods of heads with another one"
    assert found["a & c", "layer", 0] == 0
    assert found["a & c", "projection", "q"] == pytest.approx(0.25 / 1.25, abs=0.01)


def test_a_layer_method_with_a_weight_method_keeps_its_layers():
    """Given that layer 1 was chosen, a random quarter of each matrix covers a quarter of it."""
    found = chances({"a": layers(1), "b": weights(0.25, 0), "c": layers(2)})
    assert found["a & b", "model", None] == pytest.approx(0.25 / (1 + 3 * 0.25), abs=5e-4)
    assert found["a & b", "layer", 1] == pytest.approx(0.25) and found["a & b", "layer", 2] == 0
    assert found["a & b & c", "model", None] is None, "no law for two layer methods with another one"
    assert found["a & c", "model", None] == pytest.approx(0.25)


def test_weight_methods_are_compared_as_ever():
    found = chances({"a": weights(0.25, 0), "b": weights(0.5, 1)})
    law = pair_iou(tuple(((12, 24), 48, 48) for _ in SHAPES))
    assert found["a & b", "model", None] == pytest.approx(law, abs=5e-4)
