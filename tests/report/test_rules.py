"""Every rule of the verdict must be reached, also at its thresholds, and none may claim what was not measured."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_regions.report.verdict import sentences as rules
from safety_regions.report.verdict.sentences import CHAPTERS, FRAMES, verdict_of

NAN = math.nan
CHAPTER = dict(
    zip(
        ("sets", "ordinary", "numbers", "common", "pools", "blocks", "plant"),
        range(len(CHAPTERS)),
        strict=True,
    )
)
MEASURED = {
    "refinement": "raw",
    "whole_layers": False, "n_units": 1000, "pairs": 3, "defined": 3, "normalised_pairs": 3, "chance": 0.03,
    "iou": 0.3, "floor": 0.1, "floor_low": 0.08, "floor_high": 0.12, "half_iou": 0.25, "half_floor": 0.1,
    "ceiling": 0.6, "normalised": 0.3, "mixed_pairs": 6, "mixed_iou": 0.2, "mixed_floor": 0.1,
    "mixed_half_floor": 0.1, "mixed_ceiling": 0.6,
    "mixed_normalised": 0.2, "utility_pairs": 1, "utility_iou": 0.4, "pool_k": 2.0, "pool_next": 0.7, "pool_rest": 0.4,
    "n_smallest": 100.0, "n_largest": 100.0, "shared": 0.0, "pool_shuffled": 0.6, "pool_rest_shuffled": 0.1,
    "pool_nested": 0.0, "block_n": 50.0, "block_iou": 0.45,
    "recovery_iou": 0.2, "recovery_chance": 0.03, "recovery_auroc": 0.8,
    "recovery_chance_auroc": 0.52, "recovery_baseline": 0.6,
}  # fmt: skip
"""A cell in which everything was measured."""

LAYERS = {"whole_layers": True}
ONE = {name: NAN for name in ("iou", "normalised", *FRAMES)} | {"pairs": 0, "defined": 0}
BELOW = {"ceiling": NAN, "iou": 0.12}
CASES = [
    ("sets", 0, ONE, "One set: nothing to compare."),
    ("sets", 1, {"defined": 0, "iou": NAN}, "Every region is empty"),
    ("sets", 2, {**LAYERS, "n_units": 4}, "The units are 4 whole layers, too few"),
    ("sets", 3, {"floor": NAN}, "IoU 0.300 (chance 0.030). No floor is available"),
    ("sets", 4, {"ceiling": NAN}, "IoU 0.300 is above the floor (0.100, from shuffled statistics). No ceiling"),
    ("sets", 4, {"ceiling": NAN, **LAYERS}, "above the floor (0.100, from layers placed at random)"),
    ("sets", 5, BELOW, "IoU 0.120 is not above the floor (0.100, upper limit 0.120, from shuffled statistics)"),
    ("sets", 6, {"ceiling": 0.14}, "The ceiling (0.140, from two halves of one set) is at most slightly above"),
    ("sets", 6, {"ceiling": 0.05}, "The ceiling (0.050, from two halves of one set) is at most slightly above"),
    ("sets", 7, {"normalised": NAN}, "The floor is 0.100 and the ceiling 0.600, but no pair"),
    ("sets", 8, {"normalised": math.nextafter(0.1, 0)}, "little or nothing beyond the floor, from shuffled stat"),
    ("sets", 8, {"normalised": -0.2, **LAYERS}, "layers placed at random (normalised -0.20)."),
    ("sets", 9, {"normalised": 0.1}, "Partly shared (normalised 0.10)."),
    ("sets", 9, {"normalised": math.nextafter(0.5, 0)}, "Partly shared"),
    ("sets", 9, {"normalised_pairs": 2}, "Partly shared (normalised 0.30 over 2 of 3 pairs)."),
    ("sets", 10, {"normalised": 0.5}, "Mostly shared (normalised 0.50)."),
    ("sets", 10, {"normalised": math.nextafter(0.9, 0)}, "Mostly shared"),
    ("sets", 10, {"normalised": 0.6, "half_floor": 0.0, "ceiling": 0.05}, "Mostly shared"),
    ("sets", 11, {"normalised": 0.9}, "As similar as two halves of one set (normalised 0.90)."),
    ("sets", 11, {**LAYERS, "n_units": 5, "normalised": 1.2}, "As similar as two halves of one set"),
    ("ordinary", 0, {"mixed_iou": NAN}, ""),
    ("ordinary", 0, {**LAYERS, "n_units": 4}, ""),
    ("ordinary", 1, {"half_floor": NAN}, "The IoU with utility sets is 0.200."),
    ("ordinary", 1, {"mixed_normalised": NAN}, "The IoU with utility sets is 0.200."),
    ("ordinary", 1, {"mixed_ceiling": 0.14}, "The IoU with utility sets is 0.200."),
    ("ordinary", 2, {"refinement": "minus-everyday"}, "was subtracted, so little is left of it by construction (n"),
    ("ordinary", 3, {"normalised": 0.05}, "too little for a comparison with utility sets (normalised 0.20)."),
    ("ordinary", 4, {"normalised": 0.5, "mixed_normalised": 0.5}, "At least as much is shared with ordinary prompts"),
    ("ordinary", 5, {"normalised": 0.5, "mixed_normalised": 0.4}, "80 % of this is also shared with ordinary prompts"),
    ("ordinary", 5, {"normalised": 0.5, "mixed_normalised": -0.1}, "0 % of this is also shared with ordinary prompts"),
    ("pools", 0, {"pool_next": NAN}, ""),
    ("numbers", 0, {}, ""),
    ("numbers", 0, {"n_smallest": NAN, "n_largest": NAN}, ""),
    ("numbers", 1, {"n_smallest": 87.0}, "Sets have 87 to 100 prompts, so their regions can differ for that reason"),
    ("common", 0, {"shared": 0.02}, ""),
    ("common", 0, {"shared": NAN}, ""),
    ("common", 1, {"shared": 0.083}, "Up to 8 % of the prompts of a set are also in another set, which can"),
    ("pools", 1, {"pool_nested": 1.0, "pool_next": 0.99}, "by the left-out set: the region of 2 pooled sets has"),
    ("pools", 2, {"pool_next": 0.899}, "2 pooled sets still changes when one more set is added (IoU 0.899, shuffled"),
    ("pools", 2, {"pool_rest": NAN}, "sets 0.600; with the region of the left-out set: undefined)"),
    ("pools", 3, {"pool_next": 0.95, "pool_shuffled": NAN}, "(`floors`), this is no sign of convergence."),
    ("pools", 4, {"pool_next": 0.94, "pool_shuffled": 0.9}, "with nothing in common but the weights change about as"),
    ("pools", 5, {"pool_next": 0.96, "pool_shuffled": 0.9}, "2 pooled sets hardly changes when one more set is added"),
    ("pools", 5, {"pool_next": 0.9}, "hardly changes when one more set is added (IoU 0.900, shuffled sets 0.600; with"),
    ("blocks", 0, {"block_iou": NAN}, ""),
    ("blocks", 1, {}, "Two blocks of 50 prompts from one set have IoU 0.450."),
    ("plant", 0, {"recovery_iou": NAN}, ""),
    ("plant", 1, {"recovery_auroc": NAN}, "The IoU with the planted region is 0.200 (chance 0.030)."),
    ("plant", 2, {"recovery_chance_auroc": NAN}, "AUROC 0.800. Whole layers are too few to say"),
    ("plant", 3, {"recovery_baseline": NAN}, "(by chance 0.520). No data-free baseline"),
    ("plant", 4, {"recovery_auroc": 0.65}, "Scores distinguish the planted region from the rest (AUROC 0.650; by"),
    ("plant", 4, {"recovery_chance_auroc": 0.75, "recovery_baseline": 0.4}, "Scores distinguish the planted region"),
    ("plant", 5, {"recovery_auroc": 0.649}, "Scores do not distinguish the planted region from the rest (AUROC 0.649"),
    ("plant", 5, {"recovery_chance_auroc": 0.78}, "Scores do not distinguish the planted region from the rest"),
]  # fmt: skip


def reached(record: dict, chapter: str) -> int:
    return next(i for i, rule in enumerate(CHAPTERS[CHAPTER[chapter]]) if rule.applies(record))


@pytest.mark.parametrize("chapter, index, changes, sentence", CASES)
def test_each_rule_speaks_where_it_should(chapter, index, changes, sentence):
    record = MEASURED | changes
    assert reached(record, chapter) == index
    assert sentence in verdict_of(record)
    if not sentence:
        assert CHAPTERS[CHAPTER[chapter]][index].sentence == ""


def test_every_rule_has_a_case():
    known = {(chapter, index) for chapter, index, *_ in CASES}
    assert known == {(name, i) for name, place in CHAPTER.items() for i in range(len(CHAPTERS[place]))}


@pytest.mark.parametrize("column", FRAMES)
def test_a_missing_frame_is_said_to_be_missing(column):
    assert "Not measured" not in verdict_of(MEASURED)
    said = verdict_of(MEASURED | {column: NAN})
    assert said.endswith(f"Not measured, or undefined: {FRAMES[column]}.")


def test_a_bare_study_names_all_that_it_did_not_measure():
    said = verdict_of(MEASURED | dict.fromkeys(FRAMES, NAN) | {"recovery_iou": NAN})
    assert said == (
        "IoU 0.300 (chance 0.030). No floor is available, so the IoU is compared with chance only. Not measured, or "
        f"undefined: {', '.join(FRAMES.values())}."
    )


def test_few_layers_keep_every_overlap_silent():
    said = verdict_of(MEASURED | LAYERS | {"n_units": rules.FEW_LAYERS})
    assert "shared" not in said.lower() and "pool" not in said and "Two blocks" not in said
    assert "planted region" in said


number = st.one_of(st.just(NAN), st.floats(-0.5, 1.5))
CLAIMS = (
    "share little",
    "Partly shared",
    "Mostly shared",
    "As similar",
    "At least as much is",
    "% of this is also",
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_verdict_claims_what_has_no_number(data):
    counts = {"pairs": data.draw(st.integers(0, 3)), "whole_layers": data.draw(st.booleans())}
    counts |= {"defined": data.draw(st.integers(0, counts["pairs"])), "n_units": data.draw(st.integers(1, 9))}
    counts |= {"normalised_pairs": data.draw(st.integers(0, counts["defined"]))}
    counts |= {"refinement": data.draw(st.sampled_from(["raw", "minus-everyday"]))}
    record = {name: data.draw(number) for name in MEASURED if name not in counts} | counts
    said = verdict_of(record)
    assert "nan" not in said and "{" not in said and "  " not in said and said
    if any(claim in said for claim in CLAIMS):
        assert record["defined"] > 0 and record["normalised"] == record["normalised"]
        assert record["ceiling"] - record["half_floor"] >= rules.ROOM
    if record["defined"] > 0:
        assert all(
            (name in said.split("undefined: ")[-1]) for c, name in FRAMES.items() if math.isnan(record[c])
        )
