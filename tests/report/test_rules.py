"""Every rule of the verdict must be reached, also at its thresholds, and none may claim what was not measured."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_regions.report.verdict import sentences as rules
from safety_regions.report.verdict.measure import jackknife
from safety_regions.report.verdict.sentences import CHAPTERS, FRAMES, verdict_of

NAN = math.nan
CHAPTER = dict(
    zip(
        (
            *(
                "sets",
                "numbers",
                "common",
                "labels",
                "correlation",
                "ordinary",
                "responses",
                "pools",
                "core",
                "blocks",
            ),
            "plant",
        ),
        range(len(CHAPTERS)),
        strict=True,
    )
)
MEASURED = {
    "refinement": "raw",
    "whole_layers": False, "n_units": 1000, "percent": 5.0, "pairs": 3, "defined": 3, "normalised_pairs": 3,
    "chance": 0.03, "iou": 0.3, "floor": 0.1, "floor_low": 0.08, "floor_high": 0.12, "half_iou": 0.25,
    "half_floor": 0.1,
    "ceiling": 0.6, "normalised": 0.3, "disattenuated": 0.8,
    "disattenuated_floor": 0.6, "normalised_ordinary": 0.2, "mixed_pairs": 6, "mixed_iou": 0.2, "mixed_floor": 0.1,
    "mixed_half_floor": 0.1, "mixed_ceiling": 0.6,
    "mixed_normalised": 0.2, "utility_pairs": 1, "utility_iou": 0.4, "pool_k": 2.0, "pool_next": 0.7, "pool_rest": 0.4,
    "n_smallest": 100.0, "n_largest": 100.0, "shared": 0.0, "pool_shuffled": 0.6, "pool_rest_shuffled": 0.1,
    "pool_nested": 0.0, "block_n": 50.0, "block_iou": 0.45, "recovery_iou": 0.2, "recovery_chance": 0.03,
    "recovery_auroc": 0.8, "recovery_chance_auroc": 0.52, "recovery_baseline": 0.6, "permuted_iou": 0.5,
    "permuted_p": 0.05, "permuted_pairs": 3, "differing_pairs": 2, "same_prompts_iou": 0.5,
    "same_responses_iou": 0.4, "core_k": 3.0, "core": 0.4, "core_chance": 0.01, "core_shuffled": 0.1,
    "core_mixed_low": 0.5, "core_mixed_high": 0.6,
}  # fmt: skip
"""A cell in which everything was measured."""

OPTIONAL = ("permuted_iou", "disattenuated", "same_prompts_iou", "core", "recovery_iou")
"""Values that a verdict does not miss."""

LAYERS = {"whole_layers": True}
ONE = {name: NAN for name in ("iou", "normalised", *FRAMES)} | {"pairs": 0, "defined": 0}
BELOW = {"ceiling": NAN, "iou": 0.12}
CASES = [
    ("sets", 0, ONE, "One set: nothing to compare."),
    ("sets", 1, {"defined": 0, "iou": NAN}, "Every region is empty"),
    ("sets", 2, {**LAYERS, "n_units": 4}, "The units are 4 whole layers, too few"),
    ("sets", 3, {"n_units": 39, "percent": 25.0}, "Regions hold 9.8 units each, too few"),
    ("sets", 4, {"floor": NAN}, "IoU 0.300 (chance 0.030). No floor is available"),
    ("sets", 5, {"ceiling": NAN, "iou_se": 0.2}, "IoU 0.300 ± 0.200 is near the upper limit of the floor (0.120, from"),
    ("sets", 6, {"ceiling": NAN}, "IoU 0.300 is above the floor (0.100, from shuffled statistics). No ceiling"),
    ("sets", 6, {"ceiling": NAN, **LAYERS}, "above the floor (0.100, from layers placed at random)"),
    ("sets", 7, BELOW, "IoU 0.120 is not above the floor (0.100, upper limit 0.120, from shuffled statistics)"),
    ("sets", 8, {"ceiling": 0.14}, "The ceiling (0.140, from two halves of one set) is at most slightly above"),
    ("sets", 8, {"ceiling": 0.05}, "The ceiling (0.050, from two halves of one set) is at most slightly above"),
    ("sets", 8, {"ceiling": 0.16, "room_se": 0.02}, "The ceiling (0.160, from two halves of one set) is at most sli"),
    ("sets", 9, {"normalised": NAN}, "The floor is 0.100 and the ceiling 0.600, but no pair"),
    ("sets", 10, {"normalised_se": 0.2}, "Sets share little or nothing or a part or most of what two halves of one"),
    ("sets", 10, {"normalised": 0.52, "normalised_se": 0.03}, "Sets share a part or most of what two halves of one"),
    ("sets", 10, {"normalised": 0.87, "normalised_se": 0.031}, "above the floor, from shuffled statistics: near the"),
    ("sets", 11, {"normalised": math.nextafter(0.1, 0)}, "little or nothing beyond the floor, from shuffled stat"),
    ("sets", 11, {"normalised": -0.2, **LAYERS}, "layers placed at random (normalised -0.20)."),
    ("sets", 12, {"normalised": 0.1}, "Partly shared (normalised 0.10)."),
    ("sets", 12, {"normalised": math.nextafter(0.5, 0)}, "Partly shared"),
    ("sets", 12, {"normalised_pairs": 2}, "Partly shared (normalised 0.30 over 2 of 3 pairs)."),
    ("sets", 13, {"normalised": 0.5}, "Mostly shared (normalised 0.50)."),
    ("sets", 13, {"normalised": math.nextafter(0.9, 0)}, "Mostly shared"),
    ("sets", 13, {"normalised": 0.6, "half_floor": 0.0, "ceiling": 0.05}, "Mostly shared"),
    ("sets", 14, {"normalised": 0.9}, "As similar as two halves of one set (normalised 0.90)."),
    ("sets", 14, {**LAYERS, "n_units": 5, "normalised": 1.2}, "As similar as two halves of one set"),
    ("labels", 0, {"permuted_iou": NAN}, ""),
    ("labels", 0, {**LAYERS, "n_units": 4}, ""),
    ("labels", 1, {"differing_pairs": 0}, "No pair of sets differs more than random parts of its pooled prompts"),
    ("labels", 2, {}, "2 of 3 pairs of sets differ more than random parts of their pooled prompts do (median IoU of"),
    ("responses", 0, {"same_prompts_iou": NAN}, ""),
    ("responses", 1, {"same_responses_iou": 0.5}, "The responses determine the region at least as much as the prompts"),
    ("responses", 2, {}, "The prompts determine the region more than the responses do: the same prompts with two sets"),
    ("ordinary", 0, {"mixed_iou": NAN}, ""),
    ("ordinary", 0, {**LAYERS, "n_units": 4}, ""),
    ("ordinary", 1, {"half_floor": NAN}, "The IoU with utility sets is 0.200."),
    ("ordinary", 1, {"mixed_normalised": NAN}, "The IoU with utility sets is 0.200."),
    ("ordinary", 1, {"mixed_ceiling": 0.14}, "The IoU with utility sets is 0.200."),
    ("ordinary", 2, {"refinement": "minus-everyday"}, "was subtracted, so little is left of it by construction (I"),
    ("ordinary", 1, {"normalised_ordinary": NAN}, "The IoU with utility sets is 0.200."),
    ("ordinary", 3, {"normalised_ordinary_se": 0.2}, "an ordinary one is open: with ordinary pairs as zero, the norma"),
    ("ordinary", 3, {"normalised_ordinary": -0.1, "normalised_ordinary_se": 0.2}, "is -0.10 ± 0.20, near zero."),
    ("ordinary", 4, {"normalised_ordinary": 0.0}, "At least as much is shared with ordinary prompts (normalised 0.00"),
    ("ordinary", 4, {"normalised_ordinary": -0.2, "normalised_ordinary_se": 0.1}, "(normalised -0.20 ± 0.10 with ord"),
    ("ordinary", 5, {}, "With ordinary pairs as zero, the normalised overlap is 0.20: at most this part is"),
    ("ordinary", 5, {"normalised_ordinary_se": 0.19}, "the normalised overlap is 0.20 ± 0.19: at most this part is"),
    ("correlation", 0, {"disattenuated": NAN}, ""),
    ("correlation", 1, {"disattenuated_floor": NAN}, "sets correlate by 0.80, corrected for the number of prompts."),
    ("correlation", 2, {"disattenuated_se": 0.02}, "correlate by 0.80 ± 0.02, corrected for the number of prompts (0."),
    ("pools", 0, {"pool_next": NAN}, ""),
    ("numbers", 0, {}, ""),
    ("numbers", 0, {"n_smallest": NAN, "n_largest": NAN}, ""),
    ("numbers", 1, {"n_smallest": 87.0}, "Sets have 87 to 100 prompts, so their regions can differ for that reason"),
    ("common", 0, {"shared": 0.02}, ""),
    ("common", 0, {"shared": NAN}, ""),
    ("common", 1, {"shared": 0.083}, "Up to 8 % of the prompts of a set are also in another set, which can"),
    ("pools", 1, {"pool_nested": 1.0, "pool_next": 0.99}, "by the left-out set: the region of 2 pooled sets has"),
    ("pools", 3, {"pool_next": 0.899}, "2 pooled sets still changes when one more set is added (IoU 0.899, shuffled"),
    ("pools", 3, {"pool_rest": NAN}, "sets 0.600; with the region of the left-out set: undefined)"),
    ("pools", 4, {"pool_next": 0.95, "pool_shuffled": NAN}, "(`floors`), this is no sign of convergence."),
    ("pools", 5, {"pool_next": 0.94, "pool_shuffled": 0.9}, "with nothing in common but the weights change about as"),
    ("pools", 6, {"pool_next": 0.96, "pool_shuffled": 0.9}, "2 pooled sets hardly changes when one more set is added"),
    ("pools", 6, {"pool_next": 0.9}, "hardly changes when one more set is added (IoU 0.900, shuffled sets 0.600; with"),
    ("pools", 2, {"pool_next": 0.89, "pool_next_se": 0.02}, "set is added is open: the IoU is near the threshold"),
    ("core", 0, {"core": NAN}, ""),
    ("core", 0, {**LAYERS, "n_units": 4}, ""),
    ("core", 1, {"core_shuffled": NAN}, "in the regions of all 3 sets (chance 0.010; with shuffled statistics: not m"),
    ("core", 2, {"core_mixed_low": 0.149}, "but groups of mixed prompts (0.149 to 0.600) have hardly more in common"),
    ("core", 3, {"core": 0.145}, "Between shuffled sets (0.100) and groups of mixed prompts (0.500 to 0.600), this is"),
    ("core", 3, {"core": 0.5}, "0.500 of a region lies in the regions of all 3 sets. Between shuffled sets (0.100)"),
    ("core", 4, {"core": 0.13}, "hardly more than with shuffled statistics (0.100; groups of mixed prompts: 0.500 to"),
    ("core", 4, {"core": 0.05}, "there is no core of all sets."),
    ("core", 5, {}, "in the regions of all 3 sets: more than with shuffled statistics (0.100), and"),
    ("core", 5, {"core_mixed_high": 0.5}, "and less than in groups of mixed prompts (0.500), so a part of each"),
    ("core", 6, {"core": 0.56}, "as in groups that mix the prompts of all sets (0.500 to 0.600; with shuff"),
    ("blocks", 0, {"block_iou": NAN}, ""),
    ("blocks", 1, {}, "Two blocks of 50 prompts from one set have IoU 0.450."),
    ("plant", 0, {"recovery_iou": NAN}, ""),
    ("plant", 1, {"recovery_auroc": NAN}, "(of ranks, with the directions that alignment changed) is 0.200"),
    ("plant", 2, {"recovery_chance_auroc": NAN}, "AUROC 0.800. Whole layers are too few to say"),
    ("plant", 3, {"recovery_baseline": NAN}, "(by chance 0.520). No data-free baseline"),
    ("plant", 4, {"recovery_auroc": 0.66, "recovery_auroc_se": 0.02}, "is open: the AUROC is near the threshold (AU"),
    ("plant", 5, {"recovery_auroc": 0.65}, "Scores distinguish the planted region from the rest (AUROC 0.650; by"),
    ("plant", 5, {"recovery_chance_auroc": 0.75, "recovery_baseline": 0.4}, "Scores distinguish the planted region"),
    ("plant", 6, {"recovery_auroc": 0.649}, "Scores do not distinguish the planted region from the rest (AUROC 0.649"),
    ("plant", 6, {"recovery_chance_auroc": 0.78}, "Scores do not distinguish the planted region from the rest"),
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
    said = verdict_of(MEASURED | dict.fromkeys([*FRAMES, *OPTIONAL], NAN))
    assert said == (
        "IoU 0.300 (chance 0.030). No floor is available, so the IoU is compared with chance only. Not measured, or "
        f"undefined: {', '.join(FRAMES.values())}."
    )


def test_few_layers_keep_every_overlap_silent():
    said = verdict_of(MEASURED | LAYERS | {"n_units": rules.FEW_LAYERS})
    assert "shared" not in said.lower() and "pool" not in said and "Two blocks" not in said
    assert "planted region" in said


def test_few_heads_keep_every_overlap_silent():
    """Of 16 heads, a quarter is 4."""
    said = verdict_of(MEASURED | {"n_units": 16, "percent": 25.0})
    assert said.startswith("IoU 0.300 (chance 0.030). Regions hold 4.0 units each, too few for the IoU to be")
    assert "shared" not in said.lower() and "pool" not in said and "Two blocks" not in said
    assert "too few" not in verdict_of(MEASURED | {"n_units": 1000, "percent": 1.0})


number = st.one_of(st.just(NAN), st.floats(-0.5, 1.5))
CLAIMS = (
    "share little",
    "Partly shared",
    "Mostly shared",
    "As similar",
    "At least as much is",
    "at most this part",
    "above the floor, from",
    "Whether two harmful",
)
CORES = ("there is no core", "so a part of each region", "as if it hardly mattered")


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_verdict_claims_what_has_no_number(data):
    counts = {"pairs": data.draw(st.integers(0, 3)), "whole_layers": data.draw(st.booleans())}
    counts |= {
        "defined": data.draw(st.integers(0, counts["pairs"])),
        "n_units": data.draw(st.sampled_from([2, 4, 9, 900])),
    }
    counts |= {"percent": data.draw(st.sampled_from([1.0, 50.0]))}
    counts |= {"normalised_pairs": data.draw(st.integers(0, counts["defined"]))}
    counts |= {"refinement": data.draw(st.sampled_from(["raw", "minus-everyday"]))}
    errors = ["normalised_se", "normalised_ordinary_se", "room_se", "recovery_auroc_se"]
    record = {name: data.draw(number) for name in MEASURED if name not in counts} | counts
    record |= {name: abs(data.draw(number)) for name in errors}
    said = verdict_of(record)
    assert "nan" not in said and "{" not in said and "  " not in said and said
    if any(claim in said for claim in CLAIMS):
        assert record["defined"] > 0 and record["normalised"] == record["normalised"]
        assert record["ceiling"] - record["half_floor"] >= rules.ROOM
    if any(claim in said for claim in CORES):
        assert record["core_mixed_low"] - record["core_shuffled"] >= rules.ROOM and record["defined"] > 0
    if record["defined"] > 0:
        assert all(
            (name in said.split("undefined: ")[-1]) for c, name in FRAMES.items() if math.isnan(record[c])
        )


def stated(normalised: pd.DataFrame, ordinary: pd.DataFrame, errors: bool) -> tuple[int | None, int | None]:
    """Return the sentences that a cell with these values of pairs states, None if it leaves the question open."""
    record = dict(MEASURED)
    for name, rows in (("normalised", normalised), ("normalised_ordinary", ordinary)):
        record |= {name: rows["value"].median(), f"{name}_se": jackknife(rows, "value") if errors else NAN}
    found = reached(record, "sets"), reached(record, "ordinary")
    return tuple(None if i == still_open else i for i, still_open in zip(found, (10, 3), strict=True))


def flips(k: int, errors: bool) -> tuple[int, int]:
    """Return how many stated sentences leaving one set out turns into another one, and how many are stated."""
    rng, flipped, said = np.random.default_rng(k), 0, 0
    for _ in range(25):
        found = []
        for middle in (rng.uniform(-0.05, 1.05), rng.uniform(-0.15, 0.15)):
            effect, pairs = rng.normal(0, 0.05, k), combinations(range(k), 2)
            values = [(a, b, middle + effect[a] + effect[b] + rng.normal(0, 0.02)) for a, b in pairs]
            found.append(pd.DataFrame(values, columns=["a", "b", "value"]))
        whole = stated(*found, errors)
        for one in range(k):
            part = stated(*(rows[(rows["a"] != one) & (rows["b"] != one)] for rows in found), errors)
            for before, after in zip(whole, part, strict=True):
                said += before is not None
                flipped += None not in (before, after) and before != after
    return flipped, said


@pytest.mark.slow
@pytest.mark.parametrize("k", [4, 6, 8])
def test_leaving_one_set_out_flips_no_stated_sentence(k):
    """Sets with an effect each, so that pairs are not independent: a sentence may become open, never another one."""
    flipped, said = flips(k, errors=True)
    assert flipped == 0 and said > 25 * k
    assert flips(k, errors=False)[0] > 0, "without standard errors, sentences do flip"
