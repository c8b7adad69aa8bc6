"""A threshold on the score selects the neurons above it, however many there are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.formats.region import read_region, write_region
from safety_regions.methods.effectsize.selection import select
from safety_regions.overlap.chance import pair_iou
from safety_regions.overlap.iou import compute_overlap
from safety_regions.study.method_shelf import own_selection
from tests.overlap.memberships import membership_of
from tests.regions.small_regions import units, write_scores

SIZES = {"layers.0.up": 13, "layers.0.down": 13, "layers.10.up": 5, "layers.10.down": 5}


def draw(seed: int) -> dict[str, np.ndarray]:
    """Scores of a few levels, so that some equal the threshold: address -> float32 (neurons,)."""
    rng = np.random.default_rng(seed)
    return {where: rng.integers(-4, 9, n).astype(np.float32) / 4 for where, n in SIZES.items()}


def file_of(path, scores, **more):
    return write_scores(path, "neuron", scores, {"matrix": 1.0}, **more)


@given(seed=st.integers(0, 2**32 - 1), threshold=st.sampled_from([0.25, 1, 1.5, 2, 3]))
def test_neurons_above_the_threshold_are_selected(tmp_path_factory, seed, threshold):
    scores = draw(seed)
    path = file_of(tmp_path_factory.mktemp("s") / "s", scores)
    region = select(path, f"score-{threshold}", None, False)
    assert units(region) == {
        (where, k) for where, values in scores.items() for k, value in enumerate(values) if value > threshold
    }
    assert region.metadata["threshold"] == threshold
    assert region.metadata["fraction"] == region.n_selected / 36


def test_no_neuron_is_an_empty_region(tmp_path):
    region = select(file_of(tmp_path / "s", draw(1)), "score-5", None, False)
    write_region(tmp_path / "region", region)
    assert read_region(tmp_path / "region").n_selected == 0


def test_chance_is_that_of_regions_with_these_sizes(tmp_path):
    regions = {name: select(file_of(tmp_path / name, draw(seed), name=name), "score-1", None, False)
               for seed, name in ((0, "a"), (3, "b"))}  # fmt: skip
    a, b = regions.values()
    assert a.metadata["scope"] == "matrix" and a.n_selected != b.n_selected
    table = compute_overlap(membership_of(tmp_path, regions)).to_pylist()
    (model,) = [row for row in table if row["level"] == "model"]
    law = pair_iou(tuple(((a.selected_at[w], b.selected_at[w]), n, n) for w, n in SIZES.items()))
    assert model["chance"] == pytest.approx(law) and model["intersection"] == len(units(a) & units(b))


def test_a_table_without_some_neuron_is_refused(tmp_path):
    keep = {where: np.arange(n) > 0 for where, n in SIZES.items()}
    path = file_of(tmp_path / "s", draw(0), keep=keep)
    with pytest.raises(StudyError, match=r"layers\.0\.up: found 12 rows; expected 13 neurons, each once"):
        select(path, "score-1", None, False)


@pytest.mark.parametrize("text, allowed", [
    ("score-1", True), ("score-0.5", True), ("score-2.25", True), ("score-12", True),
    ("score-0", False), ("score-0.0", False), ("score--1", False), ("score-", False), ("score-1-2", False),
])  # fmt: skip
def test_thresholds_are_positive_numbers(text, allowed):
    assert (own_selection("effectsize", text) is not None) == allowed
