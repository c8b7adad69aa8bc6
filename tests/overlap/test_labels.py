"""Label permutation: splits are fair, the test keeps its level and has power, and IoUs are those of the parts."""

import numpy as np
import pyarrow as pa
import pytest

from safety_regions.formats.contracts import LABELS
from safety_regions.formats.region import write_region
from safety_regions.overlap.frame import Frame, frame_overlap
from safety_regions.overlap.labels import add_permutations, compare_parts, permutation_test, split_pool
from safety_regions.regions.refine import subtract_region
from safety_regions.regions.select import select_region
from safety_regions.scoring.samples import Chosen
from tests.overlap.memberships import draw_regions, membership_of, write_regions
from tests.regions.small_regions import SHAPES, units, write_scores

UNITS, TOP, PROMPTS, SPLITS = 400, 40, 20, 19


def prompts(rng, shared: float) -> list[np.ndarray]:
    """Return two sets of prompts with evidence for each unit; sets share a fraction of their variance."""
    common = rng.normal(size=UNITS)
    centres = [np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=UNITS) for _ in "ab"]
    return [centre + 3 * rng.normal(size=(PROMPTS, UNITS)) for centre in centres]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    best = [set(np.argsort(-part.mean(axis=0))[:TOP]) for part in (a, b)]
    return len(best[0] & best[1]) / len(best[0] | best[1])


def p_value(rng, shared: float) -> float:
    """Return the p-value of one simulated study."""
    a, b = (Chosen(list(part), {}) for part in prompts(rng, shared))
    parts = [split_pool(a, b, f"{rng.integers(2**32)} {number}") for number in range(SPLITS)]
    drawn = [iou(np.array(one.rows), np.array(two.rows)) for one, two in parts]
    return permutation_test(iou(np.array(a.rows), np.array(b.rows)), drawn)[1]


@pytest.mark.slow
def test_the_test_keeps_its_level_and_finds_what_differs():
    """Of 300 pairs of sets that do not differ, at most 5 % (+ 3 s.e.) have p <= 0.05; of 60 that do, nearly all."""
    rng = np.random.default_rng(0)
    same = [p_value(rng, 1.0) for _ in range(300)]
    assert np.mean(np.array(same) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert 0.4 < np.mean(same) < 0.65
    other = [p_value(rng, 0.2) for _ in range(60)]
    assert np.mean(np.array(other) <= 0.05) > 0.9


def test_a_split_keeps_sizes_and_prompts():
    a, b = Chosen([{"id": i} for i in range(7)], {"a": 1}), Chosen([{"id": i} for i in range(7, 12)], {})
    one, two = split_pool(a, b, "a+b 1")
    assert (len(one.rows), len(two.rows)) == (7, 5)
    assert sorted(row["id"] for row in one.rows + two.rows) == list(range(12))
    assert split_pool(a, b, "a+b 1") == (one, two) != split_pool(a, b, "a+b 2")


def test_the_p_value_counts_ties_and_itself():
    assert permutation_test(0.2, [0.2, 0.1, 0.5]) == (pytest.approx(0.8 / 3), 3 / 4)
    assert permutation_test(0.0, [0.5] * 19)[1] == 1 / 20
    assert permutation_test(0.3, [0.1, np.nan]) == (0.1, 2 / 2)
    assert np.isnan(permutation_test(np.nan, [0.1])).all() and np.isnan(permutation_test(0.1, [np.nan])).all()


def test_parts_are_compared_in_every_cell(tmp_path):
    rng = np.random.default_rng(1)
    paths = [
        write_scores(tmp_path / part, "weight", {w: rng.random(s) for w, s in SHAPES.items()}, {"row": 1.0})
        for part in "ab"
    ]
    raw = [select_region(path, "row", 0.5, allow_empty=True) for path in paths]
    utility = select_region(paths[0], "row", 0.25, allow_empty=True)
    write_region(tmp_path / "u", utility)
    cells = [{"selection": "row-0.5", "refinement": refinement} for refinement in ("raw", "minus-u")]
    found = compare_parts(paths, cells, {"row-0.5/minus-u": tmp_path / "u"}, True)
    refined = [subtract_region(region, utility) for region in raw]
    for row, cell, (a, b) in zip(found, cells, (map(units, raw), map(units, refined)), strict=True):
        assert row == {**cell, "iou": pytest.approx(len(a & b) / len(a | b))}


def test_only_pairs_over_the_whole_model_are_tested(tmp_path):
    regions = draw_regions(3, 3)
    membership = membership_of(tmp_path, regions)
    overlap = frame_overlap(membership, write_regions(tmp_path, regions), Frame())
    a, b, _ = membership.metadata["names"]
    cell = {"selection": "s", "refinement": "raw"}
    rows = [{**cell, "permutation": i, "iou": iou} for i, iou in ((1, 0.25), (2, 0.75), (3, None))]
    rows += [{**cell, "refinement": "minus-u", "permutation": 1, "iou": 0.0}]
    labels = {"+".join(sorted((a, b))): pa.Table.from_pylist(rows, schema=LABELS.schema)}
    tested = [r for r in add_permutations(overlap, labels, cell).to_pylist() if r["permuted_p"] is not None]
    assert [(row["combination"], row["level"]) for row in tested] == [(" & ".join(sorted((a, b))), "model")]
    assert tested[0]["permuted_iou"] == 0.5
    assert tested[0]["permuted_p"] == (1 + sum(iou <= tested[0]["iou"] for iou in (0.25, 0.75))) / 3
    assert add_permutations(overlap, {}, cell).equals(overlap)
