"""Regions of ranks: the best directions of a score table, a subspace without another one, and its best directions.

A refinement removes what ordinary prompts need: with projectors P_s and P_u on the two subspaces, it is the range of

    (I - P_u) P_s W                                                        (Wei et al. 2024, section 2.2)

spanned by the principal vectors of the region relative to U_u. A direction that lies within U_u but for a small angle
would come out as a unit vector like any other, so a direction remains only if at least `OUTSIDE` of its square is
outside U_u.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from safety_regions.errors import StudyError, explain
from safety_regions.formats.files import REMEDY
from safety_regions.formats.score_file import ScoreFile
from safety_regions.formats.subspaces import Subspaces

OUTSIDE = 0.5
"""sin^2 of the angle between a direction and the removed subspace, at and above which the direction remains."""

ROUNDING = 1e-6
"""Error of sin^2 between float32 bases: what is inside the removed subspace does not remain, whatever the limit."""


def first_ranks(file: ScoreFile, count: Callable[[str, int], int]) -> dict[str, np.ndarray]:
    """Return address -> the directions of its best ranks as columns, float32 (out, selected).

    Args:
        file: a score table of ranks.
        count: address and its ranks -> how many to select.

    Raises:
        StudyError: an address has fewer directions than asked for, because the responses have too few tokens, or too
            few different ones (q, k and v of the first layer see nothing else), or the table is damaged.
    """
    return {where: _first(file, where, count(where, shape[0])) for where, shape in file.shapes.items()}


def _first(file: ScoreFile, where: str, k: int) -> np.ndarray:
    units, scores = file.units(where), file.scores(where)
    order = np.argsort(units, kind="stable")[:k]
    if not np.array_equal(units[order], np.arange(k)):
        raise StudyError(explain(f"{file.path}: {where}", "missing ranks", f"the first {k}", REMEDY))
    known = int(np.count_nonzero(scores[order] > 0))
    if known < k:
        tokens = file.metadata.get("response_tokens")
        found = f"{known} directions, from responses of {tokens} tokens in all"
        hint = (
            "more prompts (`samples: {identify: 200}`), longer or more varied responses, or a selection of a smaller "
            "fraction"
        )
        raise StudyError(explain(f"{file.path}: {where}", found, f"the {k} ranks that are asked for", hint))
    return np.ascontiguousarray(file.by_prompt(where, "direction")[order].T)


def subtract_subspaces(region: Subspaces, other: Subspaces, outside: float = OUTSIDE) -> Subspaces:
    """Return the directions of ``region`` that are outside ``other``, most of all outside first.

    The dimensions of ``other`` are no longer available. Metadata: ``refinement``, ``subtracted`` and ``outside``.

    Args:
        region, other: raw regions of one backbone.
        outside: least sin^2 (0-1) of the angle between a direction that remains and ``other``; with 0, the result
            spans the whole range.
    """
    bases = {where: _outside(basis, other.bases[where], outside) for where, basis in region.bases.items()}
    available = {where: n - other.selected_at[where] for where, n in region.units_at.items()}
    return Subspaces(bases, region.shapes, {**region.metadata, "outside": outside}, available)


def _outside(basis: np.ndarray, removed: np.ndarray, least: float) -> np.ndarray:
    """Orthonormal columns that span (I - P_u) U_s, without those whose sin^2 is below ``least``: float32."""
    u, s = removed.astype(np.float64), basis.astype(np.float64)
    directions, sines, _ = np.linalg.svd(s - u @ (u.T @ s), full_matrices=False)
    return directions[:, sines**2 >= max(least - ROUNDING, ROUNDING)].astype(np.float32)


def first_as_many(region: Subspaces, like: Subspaces) -> Subspaces:
    """Return the best directions of a region, at each address as many as ``like`` has, or all if it has more."""
    bases = {where: basis[:, : like.selected_at[where]] for where, basis in region.bases.items()}
    return replace(region, bases=bases)
