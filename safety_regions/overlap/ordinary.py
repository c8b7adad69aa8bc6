"""Overlap of two identification sets on a scale whose zero is what each of them shares with ordinary prompts.

    normalised_ordinary = (half_iou - m) / (ceiling - m)

where m is the mean half_iou of the pairs of a utility set with either of the two sets. 0: two harmful sets share as
much as a harmful and an ordinary one; 1: as much as two halves of one set.
"""

import numpy as np
import pyarrow as pa

from safety_regions.overlap.iou import JOIN


def normalised_ordinary(overlap: pa.Table, half_iou: np.ndarray, ceiling: np.ndarray) -> np.ndarray:
    """Return the column ``normalised_ordinary`` of an overlap table: float64 (rows,).

    NaN unless a row is of a pair of identification sets, where a value or the utility sets are missing, and where the
    ceiling is not above the zero.

    Args:
        overlap: an `OVERLAP` table in which every combination has the same levels in the same order.
        half_iou, ceiling: its columns of these names, (rows,), NaN where undefined.
    """
    labels = overlap["combination"].to_pylist()
    levels = labels.count(labels[0]) if labels else 1
    members = [set(label.split(JOIN)) for label in labels[::levels]]
    roles = overlap["between"].to_pylist()[::levels]
    half, top = (values.reshape(len(members), levels) for values in (half_iou, ceiling))
    found = np.full(half.shape, np.nan)
    for row, (sets, role) in enumerate(zip(members, roles, strict=True)):
        mixed = [i for i, other in enumerate(members) if roles[i] == "mixed" and other & sets]
        if role == "identification" and len(sets) == 2 and mixed:
            zero = half[mixed].mean(axis=0)
            room = top[row] - zero
            np.divide(half[row] - zero, room, out=found[row], where=room > 0)
    return found.ravel()
