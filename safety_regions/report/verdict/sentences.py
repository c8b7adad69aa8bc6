"""Rules that turn the numbers of a cell into sentences that claim no more than the numbers support.

A verdict has chapters; each chapter contributes the sentence of its first rule that applies. The thresholds are
named below; they are conventions of this project, and no paper defines them.
"""

from collections.abc import Callable, Mapping
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

SETTLED = 0.9
"""IoU of a pool with the pool of one more set; from this value on, the pool hardly changes."""

FOUND = 0.05
"""AUROC above chance and every data-free baseline from which on scores are said to distinguish a planted region."""

DIGITS = {"normalised": 2, "mixed_normalised": 2, "n_units": 0, "pairs": 0, "normalised_pairs": 0, "pool_k": 0,
          "block_n": 0}  # fmt: skip
GROUND = {True: "layers placed at random", False: "shuffled statistics"}
"""What the floor is computed from, by whether units are whole layers."""

Record = Mapping[str, float]


class Rule(NamedTuple):
    """A sentence, filled with the numbers of a cell, and the condition under which it ``applies``."""

    applies: Callable[[Record], bool]
    sentence: str


def _unknown(name: str) -> Callable[[Record], bool]:
    return lambda r: bool(pd.isna(r[name]))


def compared(r: Record) -> bool:
    """Whether the overlap can be interpreted: some IoU is defined, and units are not just a few layers."""
    return r["defined"] > 0 and not few_layers(r)


def few_layers(r: Record) -> bool:
    return bool(r["whole_layers"]) and r["n_units"] <= FEW_LAYERS


def placed(r: Record) -> bool:
    """Whether identification sets have a normalised overlap and a ceiling far enough above the floor."""
    return compared(r) and _roomy(r, "")


def _roomy(r: Record, prefix: str) -> bool:
    # A comparison with NaN is false, so a missing floor or ceiling gives False.
    room = r[f"{prefix}ceiling"] - r[f"{prefix}half_floor"]
    return bool(room >= ROOM) and not pd.isna(r[f"{prefix}normalised"])


SETS = (
    Rule(lambda r: r["pairs"] == 0, "One set: nothing to compare."),
    Rule(lambda r: r["defined"] == 0, "Every region is empty: nothing to compare."),
    Rule(few_layers, "The units are {n_units} whole layers, too few for the IoU to be informative."),
    Rule(_unknown("floor"),
         "IoU {iou} (chance {chance}). No floor is available, so the IoU is compared with chance only."),
    Rule(lambda r: pd.isna(r["ceiling"]) and r["iou"] > r["floor_high"],
         "IoU {iou} is above the floor ({floor}, from {ground}). No ceiling is available for comparison."),
    Rule(_unknown("ceiling"), "IoU {iou} is not above the floor ({floor}, upper limit {floor_high}, from {ground})."),
    Rule(lambda r: not r["ceiling"] - r["half_floor"] >= ROOM,  # also where one of them is unknown
         "The ceiling ({ceiling}, from two halves of one set) is at most slightly above the floor ({floor}, from "
         "{ground}). Either the estimate has not converged or it does not depend on the prompts, so the IoU ({iou}) "
         "says little."),
    Rule(_unknown("normalised"),
         "The floor is {floor} and the ceiling {ceiling}, but no pair has a normalised overlap."),
    Rule(lambda r: r["normalised"] < NOTHING,
         "Sets share little or nothing beyond the floor, from {ground} (normalised {normalised}{over})."),
    Rule(lambda r: r["normalised"] < MOSTLY, "Partly shared (normalised {normalised}{over})."),
    Rule(lambda r: r["normalised"] < SAME, "Mostly shared (normalised {normalised}{over})."),
    Rule(lambda r: True, "As similar as two halves of one set (normalised {normalised}{over})."),
)  # fmt: skip
ORDINARY = (
    Rule(lambda r: not compared(r) or pd.isna(r["mixed_iou"]), ""),
    Rule(lambda r: not (placed(r) and _roomy(r, "mixed_")), "The IoU with utility sets is {mixed_iou}."),
    Rule(lambda r: r["refinement"] != "raw",
         "What is shared with ordinary prompts was subtracted, so little is left of it by construction (normalised "
         "{mixed_normalised})."),
    Rule(lambda r: r["normalised"] < NOTHING,
         "Sets share too little for a comparison with utility sets (normalised {mixed_normalised})."),
    Rule(lambda r: r["mixed_normalised"] >= r["normalised"],
         "At least as much is shared with ordinary prompts (normalised {mixed_normalised}), which suggests text in "
         "general rather than safety."),
    Rule(lambda r: True,
         "{share} % of this is also shared with ordinary prompts (normalised {mixed_normalised}), so only the rest "
         "can be about harm."),
)  # fmt: skip
POOLS = (
    Rule(lambda r: not compared(r) or pd.isna(r["pool_next"]), ""),
    Rule(lambda r: r["pool_next"] >= SETTLED,
         "The region of {pool_k} pooled sets hardly changes when one more set is added (IoU {pool_next}; with the "
         "region of the left-out set: {pool_rest})."),
    Rule(lambda r: True,
         "The region of {pool_k} pooled sets still changes when one more set is added (IoU {pool_next}; with the "
         "region of the left-out set: {pool_rest})."),
)  # fmt: skip
BLOCKS = (
    Rule(lambda r: not compared(r) or pd.isna(r["block_iou"]), ""),
    Rule(lambda r: True, "Two blocks of {block_n} prompts from one set have IoU {block_iou}."),
)
PLANT = (
    Rule(_unknown("recovery_iou"), ""),
    Rule(_unknown("recovery_auroc"), "The IoU with the planted region is {recovery_iou} (chance {recovery_chance})."),
    Rule(_unknown("recovery_chance_auroc"),
         "The IoU with the planted region is {recovery_iou} (chance {recovery_chance}), AUROC {recovery_auroc}. Whole "
         "layers are too few to say whether scores find them."),
    Rule(_unknown("recovery_baseline"),
         "The IoU with the planted region is {recovery_iou} (chance {recovery_chance}), AUROC {recovery_auroc} (by "
         "chance {recovery_chance_auroc}). No data-free baseline is available for comparison."),
    Rule(lambda r: r["recovery_auroc"] >= max(r["recovery_chance_auroc"], r["recovery_baseline"]) + FOUND,
         "Scores distinguish the planted region from the rest (AUROC {recovery_auroc}; by chance "
         "{recovery_chance_auroc}, best data-free baseline {recovery_baseline}; IoU {recovery_iou}, chance "
         "{recovery_chance})."),
    Rule(lambda r: True,
         "Scores do not distinguish the planted region from the rest (AUROC {recovery_auroc}; by chance "
         "{recovery_chance_auroc}, best data-free baseline {recovery_baseline}; IoU {recovery_iou}, chance "
         "{recovery_chance})."),
)  # fmt: skip
CHAPTERS = (SETS, ORDINARY, POOLS, BLOCKS, PLANT)
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
    said = [next(rule for rule in chapter if rule.applies(record)).sentence for chapter in CHAPTERS]
    missing = [name for column, name in FRAMES.items() if pd.isna(record[column])]
    if missing and record["defined"] > 0:
        said.append(f"Not measured, or undefined: {', '.join(missing)}.")
    return " ".join(sentence.format_map(words) for sentence in said if sentence)


def _words(record: Record) -> dict[str, str]:
    """Every number as it is printed in a sentence."""
    numbers = {
        name: "undefined" if pd.isna(value) else f"{value:.{DIGITS.get(name, 3)}f}"
        for name, value in record.items()
        if not isinstance(value, str)
    }
    some = 0 < record["normalised_pairs"] < record["pairs"]
    over = f" over {record['normalised_pairs']} of {record['pairs']} pairs" if some else ""
    of_it = 100 * record["mixed_normalised"] / record["normalised"] if record["normalised"] else 0
    share = "undefined" if pd.isna(of_it) else f"{max(0, of_it):.0f}"
    return {**numbers, "share": share, "ground": GROUND[bool(record["whole_layers"])], "over": over}


def explained() -> str:
    """The thresholds in words, for the page."""
    return (
        "Verdicts follow fixed rules. The normalised overlap is (half IoU - half floor) / (ceiling - half floor),"
        f" and the verdict uses its median over pairs. Below {NOTHING:g}, sets share little or nothing beyond the "
        f"floor; below {MOSTLY:g}, they share partly; from {MOSTLY:g}, mostly; from {SAME:g}, they are as similar "
        f"as two halves of one set. If the ceiling is less than {ROOM:g} above the floor, the verdict makes no "
        f"claim. A pool hardly changes if its IoU with the next pool is at least {SETTLED:g}. Scores distinguish a"
        " planted region if their AUROC (of whole neurons, where neurons are planted) exceeds the one by chance, and "
        f"that of every data-free baseline, by at least {FOUND:g}. Up to {FEW_LAYERS} whole layers are too few units "
        "for a verdict on the overlap. All thresholds are conventions, so always read the numbers too."
    )
