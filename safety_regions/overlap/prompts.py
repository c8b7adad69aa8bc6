"""The prompts behind an IoU: how many each region was found with, and how many of them two sets share.

Regions that were found with different numbers of prompts can differ for that reason alone, and prompts that two sets
share raise the IoU of their regions. Both are therefore columns of every overlap.
"""

from collections.abc import Mapping, Sequence, Set

import numpy as np
import pyarrow as pa

from safety_regions.formats.columns import column
from safety_regions.overlap.iou import JOIN

COLUMNS = ("n_smallest", "n_largest", "shared")
Numbers = tuple[float, float, float]


def with_prompts(overlap: pa.Table, used: Mapping[str, Sequence[str]], shared: pa.Table) -> pa.Table:
    """Return an `OVERLAP` table with its columns `COLUMNS` filled in; null for sets whose prompts are not known.

    Args:
        overlap: combinations of sets.
        used: set -> ids of the prompts that its region was found with.
        shared: the near pairs of prompts of any two sets (`contracts.SHARED_PROMPTS`).
    """
    near, numbers = _near(shared), {}
    combinations = overlap["combination"].to_pylist()
    for text in dict.fromkeys(combinations):
        numbers[text] = _numbers(text.split(JOIN), used, near)
    rows = np.array([numbers[text] for text in combinations], float).reshape(-1, len(COLUMNS))
    for name, values in zip(COLUMNS, rows.T, strict=True):
        place, missing = overlap.schema.get_field_index(name), np.isnan(values)
        field = overlap.schema.field(place)
        kept = np.where(missing, 0, values).astype(field.type.to_pandas_dtype())
        overlap = overlap.set_column(place, field, column(kept, missing=missing))
    return overlap


def _near(shared: pa.Table) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(a, b) -> the ids of prompts of a and b that are near, for every pair a < b of sets."""
    rows = shared.select(["a", "b", "near_a", "near_b"]).to_pylist()
    return {(row["a"], row["b"]): list(zip(row["near_a"], row["near_b"], strict=True)) for row in rows}


def _numbers(names: list[str], used: Mapping[str, Sequence[str]], near: Mapping) -> Numbers:
    """The values of `COLUMNS` for a combination of sets."""
    if not used.keys() >= set(names):
        return np.nan, np.nan, np.nan
    ids = [set(used[name]) for name in names]
    counts = [len(found) for found in ids]
    pairs = near.get(tuple(names)) if len(names) == 2 else None
    return min(counts), max(counts), np.nan if pairs is None else _shared(ids, pairs)


def _shared(ids: list[Set[str]], pairs: list[tuple[str, str]]) -> float:
    """The share of the smaller set's prompts with a near prompt in the other; of equal sets, the larger share."""
    both = [(a, b) for a, b in pairs if a in ids[0] and b in ids[1]]
    matched = [{pair[place] for pair in both} for place in (0, 1)]
    smallest = min(map(len, ids))
    return max(
        (len(of) / smallest for of, own in zip(matched, ids, strict=True) if len(own) == smallest > 0),
        default=0.0,
    )
