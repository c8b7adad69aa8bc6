"""Extract from the overlap tables what the figures need: IoUs by pair and by number of sets, and their references."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from safety_regions.errors import StudyError, explain
from safety_regions.overlap.iou import JOIN

REFERENCES = ("chance", "floor", "ceiling")
"""Values that an IoU is compared with; floor and ceiling are null if the study does not ask for them."""

NUMBERS = ("iou", *REFERENCES, "intersection", "union", "smallest", "largest")
FRAME = (
    "iou",
    "chance",
    "floor",
    "floor_low",
    "floor_high",
    "floor_marginals",
    "half_iou",
    "half_floor",
    "ceiling",
    "normalised",
    "permuted_iou",
    "permuted_p",
    "reliability",
    "disattenuated",
    "disattenuated_floor",
    "normalised_ordinary",
)
"""The columns of `contracts.OVERLAP` that place a pair between chance and ceiling, or correct it for noise."""

ROLES = ("identification", "mixed", "utility")
"""Kinds of pairs: two identification sets, one set of each role, two utility sets."""


def model_rows(tables: Iterable[tuple[str, pa.Table]], names: Sequence[str]) -> pd.DataFrame:
    """Return the rows of the whole model for combinations of ``names``.

    Args:
        tables: (refinement, its overlap table), in the order the figures show; taken one at a time.
        names: the identification sets; combinations with any other name are left out.

    Returns:
        Columns ``refinement`` (categorical, in the order given), ``combination``, ``k`` and `NUMBERS`.
    """
    return by_refinement({refinement: _model_rows(table, set(names)) for refinement, table in tables})


def by_refinement(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Stack frames, with ``refinement`` as first column, categorical in the order given."""
    frame = pd.concat(frames, names=["refinement"]).reset_index(level=0).reset_index(drop=True)
    frame["refinement"] = pd.Categorical(frame["refinement"], categories=list(frames))
    return frame


def largest_possible(table: pa.Table) -> pd.Series:
    """Combination -> the largest IoU that regions of these sizes can have.

    Over the parts of any division of the model (here its layers, its projections, or the whole), the sum of the
    smallest regions over that of the largest bounds the IoU. Regions in different projections have an IoU of 0.

    Args:
        table: a `contracts.OVERLAP` table.
    """
    frame = table.select(["combination", "level", "smallest", "largest"]).to_pandas()
    sums = frame.astype({"combination": str, "level": str}).groupby(["combination", "level"]).sum()
    return (sums["smallest"] / sums["largest"]).groupby("combination").min()


def _model_rows(table: pa.Table, names: set[str]) -> pd.DataFrame:
    table = table.filter(pc.equal(table["level"].cast(pa.string()), "model"))
    frame = table.select(["combination", "k", *NUMBERS]).to_pandas()
    known = [names.issuperset(text.split(JOIN)) for text in frame["combination"]]
    return frame.loc[np.array(known, dtype=bool)]


def pair_rows(tables: Iterable[tuple[str, pa.Table]], level: str = "model") -> pd.DataFrame:
    """Return every pair of sets, of any role, at one level.

    Args:
        tables: (refinement, its overlap table), in the order the figures show; taken one at a time.
        level: model, layer or projection.

    Returns:
        Columns ``refinement`` (categorical, in the order given), ``between`` (categorical, `ROLES`),
        ``combination``, ``k`` (2), ``a``, ``b``, ``layer``, ``projection`` and `FRAME`.
    """
    return by_refinement({refinement: _pair_rows(table, level) for refinement, table in tables})


def _pair_rows(table: pa.Table, level: str) -> pd.DataFrame:
    wanted = pc.and_(pc.equal(table["level"].cast(pa.string()), level), pc.equal(table["k"], 2))
    columns = ["between", "combination", "k", "layer", "projection", *FRAME]
    frame = table.select(columns).filter(wanted).to_pandas()
    frame["between"] = pd.Categorical(frame["between"].astype(object), categories=ROLES)
    parts = [text.split(JOIN) for text in frame["combination"]]
    for place, (column, i) in enumerate((("a", 0), ("b", 1)), start=3):
        frame.insert(place, column, [part[i] for part in parts])
    return frame


def pairs(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return one row per refinement and pair of sets a < b: columns ``refinement``, ``a``, ``b`` and `NUMBERS`.

    ``a`` and ``b`` are categorical over the sorted names, so that the name of a single set is not lost.

    Raises:
        StudyError: a pair is missing or occurs twice.
    """
    check_pairs(rows, names)
    frame = rows[rows["k"] == 2].reset_index(drop=True)
    parts = [text.split(JOIN) for text in frame["combination"]]
    for i, column in enumerate(("a", "b")):
        frame[column] = pd.Categorical([part[i] for part in parts], categories=sorted(names))
    return frame[["refinement", "a", "b", *NUMBERS]]


def method_pairs(tables: Mapping[str, pa.Table], methods: Sequence[str]) -> pd.DataFrame:
    """Return the table of `pairs` of methods, with the dataset as ``refinement``, and their `largest_possible` IoU.

    Args:
        tables: dataset -> the `contracts.OVERLAP` table of its methods.
    """
    table = pairs(model_rows(tables.items(), methods), methods)
    possible = pd.concat({dataset: largest_possible(one) for dataset, one in tables.items()})
    return table.assign(possible=[possible[r.refinement, f"{r.a}{JOIN}{r.b}"] for r in table.itertuples()])


def check_pairs(rows: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise `StudyError` unless each refinement has every pair of ``names`` exactly once."""
    frame, names = rows[rows["k"] == 2], sorted(names)
    wanted = sorted(JOIN.join(pair) for pair in combinations(names, 2))
    for refinement in frame["refinement"].cat.categories:
        found = sorted(frame.loc[frame["refinement"] == refinement, "combination"])
        if found != wanted:
            raise StudyError(
                explain(
                    f"overlap table '{refinement}'",
                    f"{len(found)} pairs of sets",
                    f"each of {len(wanted)} once",
                    "delete the overlap tables and run snakemake again",
                )
            )


def by_count(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per refinement and number of sets k, over all subsets of that size in the tables.

    Returns:
        Columns ``refinement``, ``k``, ``subsets``, ``undefined`` (subsets whose union is empty), then ``min``,
        ``q25``, ``median``, ``q75``, ``max`` of the defined IoUs and the means of `REFERENCES` over the subsets
        that have them.
    """
    groups = rows.groupby(["refinement", "k"], observed=True, sort=True)
    quartiles = {"q25": 0.25, "median": 0.5, "q75": 0.75}
    columns = {
        "subsets": groups.size(),
        "undefined": groups.size() - groups["iou"].count(),
        "min": groups["iou"].min(),
        **{name: groups["iou"].quantile(q) for name, q in quartiles.items()},
        "max": groups["iou"].max(),
        **{name: groups[name].mean() for name in REFERENCES},
    }
    return pd.DataFrame(columns).reset_index()
