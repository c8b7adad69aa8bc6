"""The map figure must show its table, and its table must equal the IoUs of the masks."""

import io
from itertools import combinations

import numpy as np
import pytest

from safety_regions.report.figures.maps import draw_map, iou_by_address
from tests.report import synthetic_tables as synthetic
from tests.report.shown import words

WHERE = "organism / snip / row-0.05"
NUMBERS = ["pairs", "undefined", "median", "min", "max"]


def ious_of(masks: np.ndarray) -> list[float]:
    """Return the defined IoUs of all pairs of masks, counted literally."""
    pairs = list(combinations(masks, 2))
    return [(a & b).sum() / (a | b).sum() for a, b in pairs if (a | b).any()]


def check(row: dict, masks: np.ndarray) -> None:
    ious, n_pairs = ious_of(masks), len(masks) * (len(masks) - 1) // 2
    assert (row["pairs"], row["undefined"]) == (n_pairs, n_pairs - len(ious))
    found = [row[name] for name in ("median", "min", "max")]
    wanted = [np.median(ious), min(ious), max(ious)] if ious else [np.nan] * 3
    assert np.allclose(found, wanted, equal_nan=True)


@pytest.mark.parametrize("k", [1, 2, 16])
def test_ious_by_address_are_those_of_the_masks(k):
    found = {r: synthetic.regions(k, 2, r, units=60) for r in synthetic.REFINEMENTS[:2]}
    # One region is empty at one address; all regions are empty at another.
    found["raw"][0, "q"][0] = False
    found["raw"][1, "down"][:] = False
    frame = iou_by_address((r, synthetic.membership(one)) for r, one in found.items())
    assert list(frame) == ["refinement", "layer", "projection", *NUMBERS] and len(frame) == 2 * 14
    for row in frame.to_dict("records"):
        check(row, found[row["refinement"]][row["layer"], row["projection"]])


def test_whole_layers_are_one_address():
    masks = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 0, 0, 1]], dtype=bool)
    frame = iou_by_address([("raw", synthetic.layer_membership(masks))])
    assert len(frame) == 1 and frame[["layer", "projection"]].isna().all(axis=None)
    check(frame.to_dict("records")[0], masks)
    assert {"all", "0.33"} <= set(words(draw_map(frame, WHERE)))


@pytest.mark.parametrize("k", [1, 2, 16])
def test_the_map_shows_the_medians(k):
    found = synthetic.regions(k, 1, units=60)
    found[0, "v"][:] = False
    frame = iou_by_address([("raw", synthetic.membership(found))])
    figure = draw_map(frame, WHERE)
    figure.savefig(io.BytesIO(), format="svg")
    said = words(figure)
    assert any(WHERE in text for text in said) and ("needs two sets" in said) == (k == 1)
    if k > 1:
        numbers = [text.get_text() for text in figure.axes[0].texts]
        wanted = ["–" if np.isnan(value) else f"{value:.2f}" for value in frame["median"]]
        assert sorted(numbers) == sorted(wanted) and "–" in wanted


def test_a_map_without_a_defined_iou_is_drawn():
    found = {address: masks & False for address, masks in synthetic.regions(2, 1, units=20).items()}
    figure = draw_map(iou_by_address([("raw", synthetic.membership(found))]), WHERE)
    assert words(figure).count("–") == 7
