"""The floor of layers must be the mean over all placements, which are counted one by one here."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.overlap.placements import placed_iou


def placements(n, size, contiguous):
    if contiguous:
        return [set(range(first, first + size)) for first in range(n - size + 1)]
    return [set(chosen) for chosen in combinations(range(n), size)]


@given(st.integers(1, 7), st.data(), st.booleans())
def test_every_placement_counts_once(n, data, contiguous):
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    found = placed_iou(n, a, b, contiguous)
    if not a + b:
        assert np.isnan(found).all()
        return
    pairs = product(placements(n, a, contiguous), placements(n, b, contiguous))
    ious = sorted(len(x & y) / len(x | y) for x, y in pairs)
    assert found.mean == pytest.approx(np.mean(ious))
    assert found.low <= found.mean + 1e-12 and found.mean <= found.high + 1e-12
    assert found.low == pytest.approx(np.quantile(ious, 0.025, method="inverted_cdf"))
    assert found.high == pytest.approx(np.quantile(ious, 0.975, method="inverted_cdf"))


def test_ranges_overlap_more_than_sets():
    assert placed_iou(32, 7, 7, True).mean > placed_iou(32, 7, 7, False).mean
