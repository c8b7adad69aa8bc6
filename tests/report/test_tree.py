"""A tree must keep blocks of similar sets together, join sets at mean IoUs, and accept undefined IoUs."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram

from safety_regions.report.combinations import model_rows, pairs
from safety_regions.report.figures.matrices import draw_matrices, matrix, tree_of
from safety_regions.report.figures.tree import draw_tree, join_sets, merge_table
from tests.report import synthetic_tables as synthetic

NAMES = sorted(synthetic.NAMES)


def ious(n: int, seed: int) -> np.ndarray:
    """Return symmetric IoUs of n sets, undefined on the diagonal."""
    values = np.random.default_rng(seed).uniform(0, 0.4, (n, n))
    values = (values + values.T) / 2
    np.fill_diagonal(values, np.nan)
    return values


def planted(blocks: np.ndarray, seed: int) -> np.ndarray:
    """Return IoUs above 0.6 within a block and below 0.4 between blocks."""
    values = ious(len(blocks), seed)
    return values + 0.6 * (blocks[:, None] == blocks[None])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=16), st.integers(0, 99))
def test_planted_blocks_stand_together(blocks, seed):
    names = NAMES[: len(blocks)]
    tree = join_sets(names, planted(np.array(blocks), seed))
    order = [blocks[names.index(name)] for name in tree.names]
    assert sorted(tree.names) == names
    assert 1 + sum(a != b for a, b in pairwise(order)) == len(set(blocks))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 16), st.integers(0, 99), st.floats(0, 1))
def test_joins_are_at_the_mean_iou_across(n, seed, share):
    values = ious(n, seed)
    gone = np.triu(np.random.default_rng(seed).random((n, n)) < share)
    values[gone | gone.T] = np.nan
    names = NAMES[:n]
    tree = join_sets(names, values)
    table = merge_table(tree, names)
    assert len(table) == n - 1
    for row in table.itertuples():
        left, right = row.left.split(" & "), row.right.split(" & ")
        across = [values[names.index(a), names.index(b)] for a, b in product(left, right)]
        assert row.iou == pytest.approx(np.mean(np.nan_to_num(across)), abs=1e-9)
        start = tree.names.index(left[0])
        assert tree.names[start : start + len(left) + len(right)] == left + right
    assert [*left, *right] == tree.names
    assert (np.diff(table["iou"]) <= 1e-9).all()


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_sets_have_no_join(n):
    tree = join_sets(NAMES[:n], np.full((n, n), np.nan))
    assert tree.names == NAMES[:n] and tree.merges is None
    assert merge_table(tree, NAMES[:n]).to_dict("list") == {"iou": [], "left": [], "right": []}


def test_the_ious_given_stay_as_they_are():
    values = ious(4, 0)
    before = values.copy()
    join_sets(NAMES[:4], values)
    assert np.array_equal(values, before, equal_nan=True)


@pytest.mark.parametrize(
    "values",
    [ious(16, 1), ious(2, 1), np.full((3, 3), np.nan), np.ones((3, 3))],
    ids=["16", "2", "undefined", "same"],
)
def test_leaves_of_the_drawing_are_the_sets_in_order(values):
    names = NAMES[: len(values)]
    tree = join_sets(names, values)
    assert [names[i] for i in dendrogram(tree.merges, no_plot=True)["leaves"]] == tree.names
    axis = Figure().subplots()
    draw_tree(axis, tree)
    bottom, top = axis.get_ylim()
    drawn = np.concatenate([line.get_ydata() for line in axis.lines])
    leaves = {x for line in axis.lines for x, y in zip(*line.get_data(), strict=True) if y == bottom}
    assert len(axis.lines) == len(names) - 1 and leaves >= set(range(len(names)))
    assert top < min(drawn) and max(drawn) <= bottom
    if (tree.merges[:, 2] > 0).all():
        joins = {round(line.get_ydata()[1], 9) for line in axis.lines}
        assert joins == {round(iou, 9) for iou in merge_table(tree, names)["iou"]}


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_tree_of_the_first_refinement_orders_every_matrix(k):
    names = NAMES[:k]
    overlaps = [
        (r, synthetic.overlap(synthetic.regions(k, 1, r, 60), NAMES, ks=(2,)))
        for r in synthetic.REFINEMENTS[:2]
    ]
    table = pairs(model_rows(overlaps, sorted(synthetic.NAMES)[:k]), names)
    tree = tree_of(table)
    assert tree.names == join_sets(names, matrix(table[table["refinement"] == "raw"])).names
    figure = draw_matrices(table, "organism", tree)
    if k == 1:
        return
    for refinement, axis in zip(synthetic.REFINEMENTS[:2], figure.axes, strict=False):
        assert [label.get_text() for label in axis.get_yticklabels()] == tree.names
        shown = axis.images[0].get_array().filled(np.nan)
        one = table[table["refinement"] == refinement]
        for row in one.itertuples():
            a, b = tree.names.index(row.a), tree.names.index(row.b)
            assert shown[a, b] == shown[b, a] == row.iou
