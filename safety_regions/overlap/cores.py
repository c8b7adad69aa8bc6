"""Cores: what k regions have in common, and what they cover together, as k grows.

    intersection(k), union(k), iou(k)     over all subsets of k regions of a group: mean, smallest and largest
    retained(k)                           mean intersection of k regions / mean intersection of k - 1 regions

The mean over all subsets is what a random order of the regions gives on average for its first k. Where ``retained``
stays near 1, more regions take nothing away. Whether that means anything shows beside two other groups of regions:

=============  =============================================================================================
``sets``       the identification sets, each with its own prompts
``shuffled``   the same sets with their statistics shuffled (floor): what the weights alone give
``regrouped``  the prompts of all sets in as many groups that each have the same share of every set: what the sets
               would give if it did not matter which set a prompt is from
=============  =============================================================================================

Random regions of the same sizes (chance) have, by the elementary symmetric polynomials e_k of their n densities p at an
address of a available units, an expected intersection of a e_k(p) / C(n, k), mean over subsets.
"""

from collections.abc import Mapping, Sequence
from math import comb
from pathlib import Path

import numpy as np
import pyarrow as pa

from safety_regions.formats.contracts import CORES
from safety_regions.overlap.chance import densities
from safety_regions.overlap.iou import intersections_and_unions
from safety_regions.overlap.membership import (
    Membership,
    addresses_of,
    count_membership,
    sizes_at,
)

SPREAD = ("", "_low", "_high")
"""Endings of the columns with mean, smallest and largest value over subsets."""


def compare_cores(paths: Mapping[str, str | Path], groups: Sequence[Mapping]) -> pa.Table:
    """Return one row per group and number of regions k: a `contracts.CORES` table.

    Args:
        paths: name -> region file.
        groups: ``kind`` (sets, shuffled or regrouped), ``draw`` (number of the shuffle or regrouping, 0 for sets) and
            ``names``, at most `names.MOST_NAMES`.

    Raises:
        StudyError: a region is damaged or cannot be compared with others of its group.
    """
    rows = []
    for group in groups:
        counted = count_membership({name: paths[name] for name in group["names"]})
        rows += [{"kind": group["kind"], "draw": group["draw"], **row} for row in core_rows(counted)]
    return pa.Table.from_pylist(rows, schema=CORES.schema)


def core_rows(membership: Membership) -> list[dict]:
    """The rows of one group of regions, for k = 1, 2, ...: the columns of `contracts.CORES` from ``k`` on."""
    n = len(membership.metadata["names"])
    intersection, union = intersections_and_unions(membership)
    k_of = np.array([pattern.bit_count() for pattern in range(1 << n)])
    iou = np.divide(intersection, union, out=np.full(union.shape, np.nan), where=union > 0)
    by_chance = _by_chance(membership)
    rows, before = [], None
    for k in range(1, n + 1):
        row = {"k": k, "subsets": comb(n, k)}
        for name, values in (("intersection", intersection), ("union", union), ("iou", iou)):
            row |= dict(zip((name + end for end in SPREAD), _spread(values[k_of == k]), strict=True))
        row["retained"] = row["intersection"] / before if before else None
        row |= {name: float(values[k]) for name, values in by_chance.items()}
        before = row["intersection"]
        rows.append(row)
    return rows


def _spread(values: np.ndarray) -> tuple[float | None, ...]:
    known = values[~np.isnan(values)].astype(float)
    return (float(known.mean()), float(known.min()), float(known.max())) if known.size else (None,) * 3


def _by_chance(membership: Membership) -> dict[str, np.ndarray]:
    """Expected intersection and union of k random regions of these sizes, mean over subsets; arrays of k, from 0."""
    metadata, where = membership.metadata, addresses_of(membership)
    available = np.array([metadata["available"][address] for address in where])
    density = densities(metadata["scope"], where, sizes_at(membership), available)
    inside, outside = (_mean_products(values) @ available for values in (density, 1 - density))
    return {"chance_intersection": inside, "chance_union": available.sum() - outside}


def _mean_products(values: np.ndarray) -> np.ndarray:
    """The mean product of k of n numbers, over all subsets: (n + 1, addresses) from (n, addresses), row k."""
    n = len(values)
    sums = np.zeros((n + 1, values.shape[1]))
    sums[0] = 1
    for row in values:
        sums[1:] += row * sums[:-1]  # the right side is read before the left side changes
    return sums / np.array([comb(n, k) for k in range(n + 1)])[:, None]
