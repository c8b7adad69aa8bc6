"""The words of a verdict: rules that turn the numbers of a cell into sentences that claim no more than they do.

A verdict has chapters; in each the first rule that applies speaks. Thresholds are conventions of this project,
named below; no paper sets them.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd

NOTHING = 0.1
"""Normalised overlap below this: no more, or hardly more, is shared than the floor gives."""

MOSTLY = 0.5
"""Normalised overlap from here on: mostly shared; below: partly."""

SAME = 0.9
"""Normalised overlap from here on: as alike as two halves of one set."""

AS_MUCH = 0.8
"""Normalised overlap with utility sets, over that among identification sets, from here on: shared as much."""

ROOM = 0.05
"""IoU by which the ceiling must exceed the floor: with less, the normalised overlap is noise."""

FEW_LAYERS = 4
"""Whole layers up to this many: IoUs of their regions take a handful of values."""

SETTLED = 0.9
"""IoU of a pool with the pool of one set more, from here on: hardly changes."""

FOUND = 0.05
"""AUROC above 0.5 from which on scores are said to find a planted region."""

DIGITS = {"normalised": 2, "mixed_normalised": 2, "n_units": 0, "pairs": 0, "normalised_pairs": 0, "pool_k": 0,
          "block_n": 0}  # fmt: skip
GROUND = {True: "layers placed at random give", False: "shuffled evidence gives"}
"""What the floor is, by whether units are whole layers."""

Record = Mapping[str, float]


class Rule(NamedTuple):
    """Speaks where it ``applies``; its sentence is filled with the cell's numbers."""

    applies: Callable[[Record], bool]
    sentence: str


def _unknown(name: str) -> Callable[[Record], bool]:
    return lambda r: bool(pd.isna(r[name]))


def compared(r: Record) -> bool:
    """There are regions whose overlap can be read: a defined IoU, of more than a few layers."""
    return r["defined"] > 0 and not few_layers(r)


def few_layers(r: Record) -> bool:
    return bool(r["whole_layers"]) and r["n_units"] <= FEW_LAYERS


def placed(r: Record) -> bool:
    """The overlap among identification sets has a place between floor and ceiling, and there is room for it."""
    return compared(r) and _roomy(r, "")


def _roomy(r: Record, prefix: str) -> bool:
    # A comparison with NaN is false: without floor or ceiling there is no room.
    room = r[f"{prefix}ceiling"] - r[f"{prefix}floor"]
    return bool(room >= ROOM) and not pd.isna(r[f"{prefix}normalised"])


SETS = (
    Rule(lambda r: r["pairs"] == 0, "One set: nothing to compare."),
    Rule(lambda r: r["defined"] == 0, "Every region is empty: nothing to compare."),
    Rule(few_layers, "Units are {n_units} whole layers, too few units for an IoU to say much."),
    Rule(_unknown("floor"), "IoU {iou} beside chance {chance} only: how much of it needs no evidence is not known."),
    Rule(lambda r: pd.isna(r["ceiling"]) and r["iou"] > r["floor_high"],
         "IoU {iou} is above what {ground} ({floor}); how far from a ceiling is not known."),
    Rule(_unknown("ceiling"), "IoU {iou} is no more than {ground} ({floor}, up to {floor_high})."),
    Rule(lambda r: r["ceiling"] - r["floor"] < ROOM,
         "Halves of one set agree ({ceiling}) no more, or hardly more, than {ground} ({floor}): the estimate has not "
         "converged, or does not depend on the evidence, and the IoU ({iou}) says little."),
    Rule(_unknown("normalised"), "Between floor {floor} and ceiling {ceiling}, but no pair has a normalised overlap."),
    Rule(lambda r: r["normalised"] < NOTHING,
         "Sets share no more, or hardly more, than {ground} (normalised {normalised}{over})."),
    Rule(lambda r: r["normalised"] < MOSTLY, "Partly shared (normalised {normalised}{over})."),
    Rule(lambda r: r["normalised"] < SAME, "Mostly shared (normalised {normalised}{over})."),
    Rule(lambda r: True, "As alike as two halves of one set (normalised {normalised}{over})."),
)  # fmt: skip
ORDINARY = (
    Rule(lambda r: not compared(r) or pd.isna(r["mixed_iou"]), ""),
    Rule(lambda r: not (placed(r) and _roomy(r, "mixed_")), "With utility sets the IoU is {mixed_iou}."),
    Rule(lambda r: r["normalised"] < NOTHING, "So little is shared that utility sets (normalised {mixed_normalised}) "
                                              "tell nothing more."),
    Rule(lambda r: r["mixed_normalised"] >= AS_MUCH * r["normalised"],
         "Shared as much with ordinary prompts (normalised {mixed_normalised}), so about text rather than safety."),
    Rule(lambda r: True, "Shared less with ordinary prompts (normalised {mixed_normalised})."),
)  # fmt: skip
POOLS = (
    Rule(lambda r: not compared(r) or pd.isna(r["pool_next"]), ""),
    Rule(lambda r: r["pool_next"] >= SETTLED,
         "A pool of {pool_k} sets hardly changes with one more (IoU {pool_next}; {pool_rest} with the set left out)."),
    Rule(lambda r: True,
         "A pool of {pool_k} sets still changes with one more (IoU {pool_next}; {pool_rest} with the set left out)."),
)  # fmt: skip
BLOCKS = (
    Rule(lambda r: not compared(r) or pd.isna(r["block_iou"]), ""),
    Rule(lambda r: True, "Two blocks of {block_n} prompts of one set agree at {block_iou}."),
)
PLANT = (
    Rule(_unknown("recovery_iou"), ""),
    Rule(_unknown("recovery_auroc"), "IoU with the planted region {recovery_iou} (chance {recovery_chance})."),
    Rule(lambda r: r["recovery_auroc"] >= 0.5 + FOUND,
         "Scores tell the planted region from the rest (AUROC {recovery_auroc}; IoU {recovery_iou}, chance "
         "{recovery_chance})."),
    Rule(lambda r: True, "Scores do not tell the planted region from the rest (AUROC {recovery_auroc}; IoU "
                         "{recovery_iou}, chance {recovery_chance})."),
)  # fmt: skip
CHAPTERS = (SETS, ORDINARY, POOLS, BLOCKS, PLANT)
FRAMES = {
    "floor": "floor",
    "ceiling": "ceiling",
    "mixed_iou": "overlap with utility sets",
    "pool_next": "pools",
    "block_iou": "blocks of prompts",
}
"""What a verdict names where the study has no number for it."""


def verdict_of(record: Record) -> str:
    """The sentences of one row of `verdict.measure`, its last column aside."""
    words = _words(record)
    said = [next(rule for rule in chapter if rule.applies(record)).sentence for chapter in CHAPTERS]
    missing = [name for column, name in FRAMES.items() if pd.isna(record[column])]
    if missing and record["defined"] > 0:
        said.append(f"Not measured, or undefined: {', '.join(missing)}.")
    return " ".join(sentence.format_map(words) for sentence in said if sentence)


def _words(record: Record) -> dict[str, str]:
    """Every number as it stands in a sentence."""
    numbers = {
        name: "undefined" if pd.isna(value) else f"{value:.{DIGITS.get(name, 3)}f}"
        for name, value in record.items()
        if not isinstance(value, str)
    }
    some = 0 < record["normalised_pairs"] < record["pairs"]
    over = f" over {record['normalised_pairs']} of {record['pairs']} pairs" if some else ""
    return {**numbers, "ground": GROUND[bool(record["whole_layers"])], "over": over}


def explained() -> str:
    """The thresholds in words, for the page."""
    return (
        f"Verdicts follow fixed rules. The normalised overlap is (half IoU - floor) / (ceiling - "
        f"floor), the median over "
        f"pairs: below {NOTHING:g} sets share no more, or hardly more, than the floor gives; below "
        f"{MOSTLY:g} they share partly, "
        f"from {MOSTLY:g} mostly, from {SAME:g} they are as alike as two halves of one set. Where the "
        f"ceiling is less than "
        f"{ROOM:g} above the floor, nothing is claimed. An overlap with utility sets of at least "
        f"{AS_MUCH:g} times that among "
        f"identification sets is called as much. A pool is called settled from an IoU of {SETTLED:g} "
        f"with the next, a planted region "
        f"told from the rest from an AUROC of {0.5 + FOUND:g}. Up to {FEW_LAYERS} whole layers are "
        f"too few units to read. "
        f"These thresholds are conventions: read the numbers."
    )
