"""A region of ranks is compared with a change by projectors, and chance is that of random subspaces."""

import numpy as np
import pytest

from safety_regions.formats.subspaces import Subspaces
from safety_regions.overlap.recovery_of_ranks import recovery_of_subspaces
from tests.oracles.ranks import projector, soft_iou

SHAPES = {"layers.0.q": (12, 8), "layers.0.k": (6, 8)}
RANKS = {where: min(shape) for where, shape in SHAPES.items()}
HOW = {"granularity": "rank", "scope": "matrix", "fraction": 0.5}


def basis(rng, n: int, k: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((n, k)))[0].astype(np.float32)


def region(columns: dict[str, np.ndarray], available: dict[str, int] = RANKS) -> Subspaces:
    shapes = {where: (RANKS[where],) for where in columns}
    return Subspaces(columns, shapes, HOW, dict(available))


def drawn(seed: int, sizes=(4, 3)) -> Subspaces:
    rng = np.random.default_rng(seed)
    return region(
        {where: basis(rng, shape[0], k) for (where, shape), k in zip(SHAPES.items(), sizes, strict=True)}
    )


def test_numbers_are_those_of_projectors():
    found, change = drawn(0), drawn(1)
    rows = recovery_of_subspaces(found, change)
    shared = sum(np.trace(projector(found.bases[w]) @ projector(change.bases[w])) for w in SHAPES)
    assert rows["precision"] == pytest.approx(shared / 7, rel=1e-6)
    assert rows["iou"] == pytest.approx(shared / (14 - shared), rel=1e-6)
    expected = 4 * 4 / 8 + 3 * 3 / 6
    assert rows["chance"] == pytest.approx(expected / (14 - expected)) and rows["prevalence"] == expected / 7
    assert (rows["n_weights"], rows["n_truth"], rows["n_selected"], rows["intersection"]) == (14, 7, 7, None)
    one = {"layers.0.q": found.bases["layers.0.q"]}, {"layers.0.q": change.bases["layers.0.q"]}
    alone = recovery_of_subspaces(*map(region, one, [{"layers.0.q": 8}] * 2))
    assert alone["iou"] == pytest.approx(soft_iou(one[0]["layers.0.q"], one[1]["layers.0.q"]), rel=1e-6)


def test_only_as_many_directions_of_the_change_count_as_the_selection_takes():
    """A change of more directions than the region may have is cut to its best ones, one of fewer stays as it is."""
    found, few, many = drawn(0), drawn(1, (1, 0)), drawn(1, (6, 5))
    cut = region({where: columns[:, : RANKS[where] // 2] for where, columns in many.bases.items()})
    assert recovery_of_subspaces(found, many) == recovery_of_subspaces(found, cut)
    assert recovery_of_subspaces(found, few)["n_truth"] == 1
    assert recovery_of_subspaces(found, found)["iou"] == pytest.approx(1, rel=1e-6)


def test_nothing_is_recovered_where_nothing_changed():
    rows = recovery_of_subspaces(drawn(0), drawn(1, (0, 0)))
    assert (rows["precision"], rows["recall"], rows["iou"], rows["chance"]) == (0, None, 0, 0)


def test_chance_of_a_refined_region_is_that_of_random_subspaces_outside_the_removed_one():
    """The mean over subspaces that are drawn outside of the removed one, whatever the change is."""
    rng, where = np.random.default_rng(3), "layers.0.q"
    removed = region({where: basis(rng, 12, 3)}, {where: 8})
    outside = np.linalg.svd(removed.bases[where].astype(float))[0][:, 3:8]  # five of the eight ranks are left
    inside = np.concatenate([removed.bases[where], outside], axis=1)
    change = region({where: (inside @ basis(rng, 8, 4)).astype(np.float32)}, {where: 8})
    shared = []
    for _ in range(2000):
        found = region({where: (outside @ basis(rng, 5, 2)).astype(np.float32)}, {where: 5})
        rows = recovery_of_subspaces(found, change, removed)
        shared.append(rows["precision"])
    error = np.std(shared) / len(shared) ** 0.5
    assert abs(np.mean(shared) - rows["prevalence"]) < 4 * error
    assert abs(np.mean(shared) - recovery_of_subspaces(found, change)["prevalence"]) > 10 * error
