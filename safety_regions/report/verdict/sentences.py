"""Rules that turn the numbers of a cell into sentences that claim no more than the numbers support.

A verdict has chapters; each chapter contributes the sentence of its first rule that applies. The thresholds are
named below; they are conventions of this project, and no paper defines them. A value within one jackknife standard
error of a threshold is called near it, or gets the weaker sentence: leaving out one set could move it across.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

NOTHING = 0.1
"""Normalised overlap below this value: little or nothing is shared beyond the floor."""

MOSTLY = 0.5
"""Normalised overlap of at least this value: mostly shared; below: partly shared."""

SAME = 0.9
"""Normalised overlap of at least this value: as similar as two halves of one set."""

ROOM = 0.05
"""IoU by which the ceiling must exceed the floor; with a smaller difference, the normalised overlap is noise."""

FEW_LAYERS = 4
"""Number of whole layers up to which the IoU of two regions can take only a few values."""

FEW_UNITS = 10
"""Units of a region, mean over sets, below which one unit more or less in common moves the IoU a lot."""

SETTLED = 0.9
"""IoU of a pool with the pool of one more set; from this value on, the pool hardly changes."""

CLOSED = 0.5
"""Fraction of the way from the IoU of shuffled pools to 1 that the IoU of real ones must have gone to have settled."""

SHARED = 0.02
"""Share of a set's prompts that another set also has; above it, the verdict says that they can raise the IoU."""

FOUND = 0.05
"""AUROC above chance and every data-free baseline from which on scores are said to distinguish a planted region."""

SIGNIFICANT = 0.05
"""p-value of a label permutation test up to which two sets are said to differ, without correction for several pairs."""

SHARES = ("little or nothing", "a part", "most", "all")
"""What sets share of what two halves of one set share, below and between `NOTHING`, `MOSTLY` and `SAME`."""

DIGITS = {"normalised": 2, "normalised_ordinary": 2, "disattenuated": 2, "disattenuated_floor": 2, "n_units": 0,
          "pairs": 0, "normalised_pairs": 0, "pool_k": 0, "core_k": 0, "block_n": 0, "permuted_pairs": 0,
          "differing_pairs": 0, "pool_nested": 0, "n_smallest": 0, "n_largest": 0}  # fmt: skip
GROUND = {True: "layers placed at random", False: "shuffled statistics"}
"""What the floor is computed from, by whether units are whole layers."""

Record = Mapping[str, float]


class Rule(NamedTuple):
    """A sentence, filled with the numbers of a cell, and the condition under which it ``applies``.

    ``finding`` says the same in a few words and without numbers, for lists of cells.
    """

    applies: Callable[[Record], bool]
    sentence: str
    finding: str = ""


def _unknown(name: str) -> Callable[[Record], bool]:
    return lambda r: bool(pd.isna(r[name]))


def near(r: Record, name: str, threshold: float) -> bool:
    """Whether a value is within one jackknife standard error of a threshold; False if there is no standard error."""
    return bool(0 < _error(r, name) >= abs(r[name] - threshold))


def _error(r: Record, name: str) -> float:
    error = r.get(f"{name}_se", 0.0)
    return 0.0 if pd.isna(error) else error


def _open(r: Record) -> list[str]:
    """Return the `SHARES` that a normalised overlap near one or more thresholds leaves open, else an empty list."""
    at = [i for i, threshold in enumerate((NOTHING, MOSTLY, SAME)) if near(r, "normalised", threshold)]
    return list(SHARES[at[0] : at[-1] + 2]) if at else []


def _core_rank(r: Record) -> tuple[float, float]:
    """How far the core of all sets is from that of shuffled sets (0) to that of mixed prompts (1): both regroupings."""
    room = [r[name] - r["core_shuffled"] for name in ("core_mixed_low", "core_mixed_high")]
    low, high = sorted((r["core"] - r["core_shuffled"]) / one for one in room)
    return low, high


def _needed(r: Record) -> float:
    """The AUROC from which on scores are said to distinguish a planted region."""
    return max(r["recovery_chance_auroc"], r["recovery_baseline"]) + FOUND


def compared(r: Record) -> bool:
    """Whether the overlap can be interpreted: some IoU is defined, and units are not just a few."""
    return r["defined"] > 0 and not few_layers(r) and not few_units(r)


def few_layers(r: Record) -> bool:
    return bool(r["whole_layers"]) and r["n_units"] <= FEW_LAYERS


def few_units(r: Record) -> bool:
    """Whether regions hold few units. Of whole layers there are always few; their floor is exact."""
    return not r["whole_layers"] and _n_selected(r) < FEW_UNITS


def _n_selected(r: Record) -> float:
    """Units of a region, mean over sets."""
    return r["percent"] / 100 * r["n_units"]


def placed(r: Record) -> bool:
    """Whether identification sets have a normalised overlap and a ceiling far enough above the floor."""
    return compared(r) and _roomy(r, "")


def _roomy(r: Record, prefix: str) -> bool:
    # A comparison with NaN is false, so a missing floor or ceiling gives False.
    room = r[f"{prefix}ceiling"] - r[f"{prefix}half_floor"] - _error(r, f"{prefix}room")
    return bool(room >= ROOM) and not pd.isna(r[f"{prefix}normalised"])


SETS = (
    Rule(lambda r: r["pairs"] == 0, "One set: nothing to compare.",
         "one set, nothing to compare"),
    Rule(lambda r: r["defined"] == 0, "Every region is empty: nothing to compare.",
         "every region is empty"),
    Rule(few_layers, "The units are {n_units} whole layers, too few for the IoU to be informative.",
         "too few whole layers to compare"),
    Rule(few_units,
         "IoU {iou} (chance {chance}). Regions hold {n_selected} units each, too few for the IoU to be informative.",
         "too few units to compare"),
    Rule(_unknown("floor"),
         "IoU {iou} (chance {chance}). No floor is available, so the IoU is compared with chance only.",
         "compared with chance only"),
    Rule(lambda r: pd.isna(r["ceiling"]) and r["iou"] > r["floor_high"] and near(r, "iou", r["floor_high"]),
         "IoU {iou} is near the upper limit of the floor ({floor_high}, from {ground}), so whether it is above is "
         "open. No ceiling is available for comparison.",
         "open: near the floor"),
    Rule(lambda r: pd.isna(r["ceiling"]) and r["iou"] > r["floor_high"],
         "IoU {iou} is above the floor ({floor}, from {ground}). No ceiling is available for comparison.",
         "above the floor, no ceiling"),
    Rule(_unknown("ceiling"), "IoU {iou} is not above the floor ({floor}, upper limit {floor_high}, from {ground}).",
         "not above the floor"),
    Rule(lambda r: not r["ceiling"] - r["half_floor"] - _error(r, "room") >= ROOM,  # also where one is unknown
         "The ceiling ({ceiling}, from two halves of one set) is at most slightly above the floor ({floor}, from "
         "{ground}). Either the estimate has not converged or it does not depend on the prompts, so the IoU ({iou}) "
         "says little.",
         "no claim: the ceiling is hardly above the floor"),
    Rule(_unknown("normalised"),
         "The floor is {floor} and the ceiling {ceiling}, but no pair has a normalised overlap.",
         "no claim: no pair has a normalised overlap"),
    Rule(lambda r: bool(_open(r)),
         "Sets share {open} of what two halves of one set share above the floor, from {ground}: near the threshold "
         "(normalised {normalised}{over}).",
         "open: near a threshold"),
    Rule(lambda r: r["normalised"] < NOTHING,
         "Sets share little or nothing beyond the floor, from {ground} (normalised {normalised}{over}).",
         "little or nothing shared beyond the floor"),
    Rule(lambda r: r["normalised"] < MOSTLY, "Partly shared (normalised {normalised}{over}).",
         "partly shared"),
    Rule(lambda r: r["normalised"] < SAME, "Mostly shared (normalised {normalised}{over}).",
         "mostly shared"),
    Rule(lambda r: True, "As similar as two halves of one set (normalised {normalised}{over}).",
         "as similar as two halves of one set"),
)  # fmt: skip
CORRELATION = (
    Rule(lambda r: not compared(r) or pd.isna(r["disattenuated"]), ""),
    Rule(_unknown("disattenuated_floor"),
         "The log scores of two sets correlate by {disattenuated}, corrected for the number of prompts."),
    Rule(lambda r: True,
         "The log scores of two sets correlate by {disattenuated}, corrected for the number of prompts "
         "({disattenuated_floor} with shuffled statistics)."),
)  # fmt: skip
ORDINARY = (
    Rule(lambda r: not compared(r) or pd.isna(r["mixed_iou"]), "", "not compared"),
    Rule(lambda r: not (placed(r) and _roomy(r, "mixed_")) or pd.isna(r["normalised_ordinary"]),
         "The IoU with utility sets is {mixed_iou}.",
         "no claim: not enough to compare with"),
    Rule(lambda r: r["refinement"] != "raw",
         "What is shared with ordinary prompts was subtracted, so little is left of it by construction (IoU with "
         "utility sets {mixed_iou}).",
         "ordinary prompts were subtracted"),
    Rule(lambda r: near(r, "normalised_ordinary", 0),
         "Whether two harmful sets share more than a harmful and an ordinary one is open: with ordinary pairs as zero, "
         "the normalised overlap is {normalised_ordinary}, near zero.",
         "open: near zero"),
    Rule(lambda r: r["normalised_ordinary"] <= 0,
         "At least as much is shared with ordinary prompts (normalised {normalised_ordinary} with ordinary pairs as "
         "zero), which suggests text in general rather than safety.",
         "no more than with ordinary prompts"),
    Rule(lambda r: True,
         "With ordinary pairs as zero, the normalised overlap is {normalised_ordinary}: at most this part is about "
         "harm, and it includes what refusals share and ordinary answers do not.",
         "more than with ordinary prompts"),
)  # fmt: skip
LABELS = (
    Rule(lambda r: not compared(r) or pd.isna(r["permuted_iou"]), ""),
    Rule(lambda r: r["differing_pairs"] == 0,
         "No pair of sets differs more than random parts of its pooled prompts do (median IoU of the parts "
         "{permuted_iou}, median p {permuted_p})."),
    Rule(lambda r: True,
         "{differing_pairs} of {permuted_pairs} pairs of sets differ more than random parts of their pooled prompts do "
         "(median IoU of the parts {permuted_iou}, median p {permuted_p})."),
)  # fmt: skip
RESPONSES = (
    Rule(lambda r: not compared(r) or pd.isna(r["same_prompts_iou"]), "", "not compared"),
    Rule(lambda r: r["same_responses_iou"] >= r["same_prompts_iou"],
         "The responses determine the region at least as much as the prompts do: two sets of prompts with the same "
         "responses have IoU {same_responses_iou}, the same prompts with two sets of responses {same_prompts_iou}.",
         "the responses, at least as much as the prompts"),
    Rule(lambda r: True,
         "The prompts determine the region more than the responses do: the same prompts with two sets of responses "
         "have IoU {same_prompts_iou}, two sets of prompts with the same responses {same_responses_iou}.",
         "the prompts, more than the responses"),
)  # fmt: skip
POOLS = (
    Rule(lambda r: not compared(r) or pd.isna(r["pool_next"]), ""),
    Rule(lambda r: r["pool_nested"] == 1,
         "Regions of growing pools only lose units here, so a pool resembles the next one the more, the larger it is "
         "(IoU {pool_next}). Judge convergence by the left-out set: the region of {pool_k} pooled sets has IoU "
         "{pool_rest} with it (shuffled sets: {pool_rest_shuffled})."),
    Rule(lambda r: near(r, "pool_next", SETTLED),
         "Whether the region of {pool_k} pooled sets still changes when one more set is added is open: the IoU is near "
         "the threshold (IoU {pool_next}; with the region of the left-out set: {pool_rest})."),
    Rule(lambda r: r["pool_next"] < SETTLED,
         "The region of {pool_k} pooled sets still changes when one more set is added (IoU {pool_next}, shuffled sets "
         "{pool_shuffled}; with the region of the left-out set: {pool_rest})."),
    Rule(_unknown("pool_shuffled"),
         "The region of {pool_k} pooled sets has IoU {pool_next} with the pool of one more set (with the region of "
         "the left-out set: {pool_rest}). Large pools always change little; without pools of shuffled sets "
         "(`floors`), this is no sign of convergence."),
    Rule(lambda r: r["pool_next"] < r["pool_shuffled"] + CLOSED * (1 - r["pool_shuffled"]),
         "The region of {pool_k} pooled sets changes little when one more set is added (IoU {pool_next}), but pools of "
         "sets with nothing in common but the weights change about as little (shuffled sets {pool_shuffled}; with the "
         "region of the left-out set: {pool_rest})."),
    Rule(lambda r: True,
         "The region of {pool_k} pooled sets hardly changes when one more set is added (IoU {pool_next}, shuffled "
         "sets {pool_shuffled}; with the region of the left-out set: {pool_rest})."),
)  # fmt: skip
_CORE = "{core} of a region lies in the regions of all {core_k} sets"
CORE = (
    Rule(lambda r: not compared(r) or pd.isna(r["core"]), "", "not compared"),
    Rule(_unknown("core_shuffled"),
         f"{_CORE} (chance {{core_chance}}; with shuffled statistics: not measured).",
         "no claim: no shuffled sets"),
    Rule(lambda r: not r["core_mixed_low"] - r["core_shuffled"] >= ROOM,
         f"{_CORE}, but groups of mixed prompts ({{core_mixed}}) have hardly more in common than shuffled sets "
         "({core_shuffled}), so this says nothing.",
         "no claim: mixed prompts have hardly more in common than shuffled sets"),
    Rule(lambda r: any(_core_rank(r)[0] < threshold <= _core_rank(r)[1] for threshold in (NOTHING, SAME)),
         f"{_CORE}. Between shuffled sets ({{core_shuffled}}) and groups of mixed prompts ({{core_mixed}}), this is "
         "near a threshold.",
         "open: near a threshold"),
    Rule(lambda r: _core_rank(r)[1] < NOTHING,
         f"{_CORE}, hardly more than with shuffled statistics ({{core_shuffled}}; groups of mixed prompts: "
         "{core_mixed}): there is no core of all sets.",
         "no core"),
    Rule(lambda r: _core_rank(r)[1] < SAME,
         f"{_CORE}: more than with shuffled statistics ({{core_shuffled}}), and less than in groups of mixed prompts "
         "({core_mixed}), so a part of each region belongs to its set.",
         "a core, smaller than that of mixed prompts"),
    Rule(lambda r: True,
         f"{_CORE}, as in groups that mix the prompts of all sets ({{core_mixed}}; with shuffled statistics "
         "{core_shuffled}), as if it hardly mattered which set a prompt is from.",
         "a core as large as that of mixed prompts"),
)  # fmt: skip
BLOCKS = (
    Rule(lambda r: not compared(r) or pd.isna(r["block_iou"]), ""),
    Rule(lambda r: True, "Two blocks of {block_n} prompts from one set have IoU {block_iou}."),
)
PLANT = (
    Rule(_unknown("recovery_iou"), "", "not compared"),
    Rule(_unknown("recovery_auroc"),
         "The IoU with the planted region (of ranks, with the directions that alignment changed) is {recovery_iou} "
         "(chance {recovery_chance}).",
         "no AUROC: scores are not all stored, or are of ranks"),
    Rule(_unknown("recovery_chance_auroc"),
         "The IoU with the planted region is {recovery_iou} (chance {recovery_chance}), AUROC {recovery_auroc}. Whole "
         "layers are too few to say whether scores find them.",
         "too few whole layers to say"),
    Rule(_unknown("recovery_baseline"),
         "The IoU with the planted region is {recovery_iou} (chance {recovery_chance}), AUROC {recovery_auroc} (by "
         "chance {recovery_chance_auroc}). No data-free baseline is available for comparison.",
         "no data-free baseline to compare with"),
    Rule(lambda r: near(r, "recovery_auroc", _needed(r)),
         "Whether scores distinguish the planted region from the rest is open: the AUROC is near the threshold (AUROC "
         "{recovery_auroc}; by chance {recovery_chance_auroc}, best data-free baseline {recovery_baseline}; IoU "
         "{recovery_iou}, chance {recovery_chance}).",
         "open: near the threshold"),
    Rule(lambda r: r["recovery_auroc"] >= _needed(r),
         "Scores distinguish the planted region from the rest (AUROC {recovery_auroc}; by chance "
         "{recovery_chance_auroc}, best data-free baseline {recovery_baseline}; IoU {recovery_iou}, chance "
         "{recovery_chance}).",
         "distinguish it from the rest"),
    Rule(lambda r: True,
         "Scores do not distinguish the planted region from the rest (AUROC {recovery_auroc}; by chance "
         "{recovery_chance_auroc}, best data-free baseline {recovery_baseline}; IoU {recovery_iou}, chance "
         "{recovery_chance}).",
         "do not distinguish it from the rest"),
)  # fmt: skip
NUMBERS = (
    Rule(lambda r: r["pairs"] == 0 or not r["n_smallest"] < r["n_largest"], ""),  # also where they are unknown
    Rule(lambda r: True,
         "Sets have {n_smallest} to {n_largest} prompts, so their regions can differ for that reason alone."),
)  # fmt: skip
COMMON = (
    Rule(lambda r: r["pairs"] == 0 or not r["shared"] > SHARED, ""),
    Rule(
        lambda r: True,
        "Up to {shared_percent} % of the prompts of a set are also in another set, which can raise the IoU.",
    ),
)
CHAPTERS = (SETS, NUMBERS, COMMON, LABELS, CORRELATION, ORDINARY, RESPONSES, POOLS, CORE, BLOCKS, PLANT)
FRAMES = {
    "floor": "floor",
    "ceiling": "ceiling",
    "mixed_iou": "overlap with utility sets",
    "pool_next": "pools",
    "block_iou": "blocks of prompts",
}
"""Names in a verdict for values that the study does not have."""


def verdict_of(record: Record) -> str:
    """The verdict on one row of `verdict.measure`, given without its last column."""
    words = _words(record)
    said = [_applying(chapter, record).sentence for chapter in CHAPTERS]
    missing = [name for column, name in FRAMES.items() if pd.isna(record[column])]
    if missing and record["defined"] > 0:
        said.append(f"Not measured, or undefined: {', '.join(missing)}.")
    return " ".join(sentence.format_map(words) for sentence in said if sentence)


def finding_of(chapter: Sequence[Rule], record: Record) -> str:
    """What a chapter finds in a row of `verdict.measure`, in a few words."""
    return _applying(chapter, record).finding


def _applying(chapter: Sequence[Rule], record: Record) -> Rule:
    return next(rule for rule in chapter if rule.applies(record))


def _words(record: Record) -> dict[str, str]:
    """Every number as it is printed in a sentence."""
    numbers = {
        name: "undefined" if pd.isna(value) else f"{value:.{DIGITS.get(name, 3)}f}"
        for name, value in record.items()
        if not isinstance(value, str)
    }
    errors = {name: _error(record, name) for name in numbers if f"{name}_se" in record}
    numbers |= {
        name: f"{numbers[name]} ± {error:.{DIGITS.get(name, 3)}f}"
        for name, error in errors.items()
        if error and not pd.isna(record[name])
    }
    some = 0 < record["normalised_pairs"] < record["pairs"]
    over = f" over {record['normalised_pairs']} of {record['pairs']} pairs" if some else ""
    ground, left_open = GROUND[bool(record["whole_layers"])], " or ".join(_open(record))
    common = f"{100 * record['shared']:.0f}" if record["shared"] > SHARED else ""
    numbers["n_selected"] = f"{_n_selected(record):.1f}"
    mixed = (numbers["core_mixed_low"], numbers["core_mixed_high"])
    numbers["core_mixed"] = " to ".join(dict.fromkeys(mixed))
    return {**numbers, "shared_percent": common, "ground": ground, "over": over, "open": left_open}


def explained() -> str:
    """The thresholds in words, for the page."""
    return (
        "Verdicts follow fixed rules. The disattenuated correlation does not depend on the number of prompts: use it "
        "to compare methods or studies. The normalised overlap, (half IoU - half floor) / (ceiling - half "
        "floor), depends on the number of prompts, and differently for each method: do not compare methods by it."
        f" The verdict uses its median over pairs. Below {NOTHING:g}, sets share little or nothing beyond the "
        f"floor; below {MOSTLY:g}, they share partly; from {MOSTLY:g}, mostly; from {SAME:g}, they are as similar "
        f"as two halves of one set. If the ceiling is less than {ROOM:g} above the floor, the verdict makes no "
        f"claim. Two sets differ if the p-value of their label permutation test is at most {SIGNIFICANT:g}; it is not "
        "corrected for the number of pairs. A pool hardly changes if its IoU with the next pool is at least "
        f"{SETTLED:g} and has gone at least {100 * CLOSED:g} % of the way from that of pools of shuffled sets to 1. "
        f"All sets have no core if the part of a region that lies in all of them has gone less than {100 * NOTHING:g} "
        f"% of the way from shuffled sets to groups of mixed prompts, and one as large as theirs from {100 * SAME:g} "
        "%. "
        "Scores distinguish a planted region if their AUROC (of whole neurons, where neurons are planted) exceeds the "
        "one by chance, and that of every data-free baseline that reads no more than the method, by at least "
        f"{FOUND:g}. A value within one standard "
        f"error (±) of a threshold is called near it. Prompts that sets share are mentioned above {100 * SHARED:g} % "
        f"of a set. Up to {FEW_LAYERS} whole layers, and regions of fewer than {FEW_UNITS} other units, are too few "
        "for a verdict on the overlap. All thresholds are conventions, so always read the numbers too."
    )
