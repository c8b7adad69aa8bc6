"""Two studies, cell by cell: what changed between the results of another study (there) and of this one (here).

A difference is here minus there, over the pairs of sets that both studies have. Its standard error is a jackknife over
these sets (`verdict.measure.jackknife_of`): each set is left out of both studies at once, so what a set does to both
cancels. The 95 % interval is Student's t with one degree of freedom less than there are sets. It covers the choice of
the sets. It does not cover what another training, other prompts of the same sets or other shuffles would give.

No difference is given where the numbers measure other things: see `report.differing`. Everything else that is
known to differ is named beside the difference.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from scipy.special import stdtrit

from safety_regions.formats.region_file import RegionFile
from safety_regions.report.combinations import FRAME, ROLES, pair_rows
from safety_regions.report.differing import SIDES, Differences, differences
from safety_regions.report.files import read_tsv
from safety_regions.report.pages.answers import QUESTIONS, UNKNOWN
from safety_regions.report.verdict.measure import (
    CELL,
    MEDIANS,
    PREFIX,
    SEPARATOR,
    cells_of,
    jackknife_of,
    model_pairs,
)
from safety_regions.report.verdict.sentences import finding_of

MEASURES = {
    ROLES[0]: (
        *("iou", "chance", "floor", "floor_marginals", "half_iou", "half_floor", "ceiling", "normalised"),
        *("normalised_ordinary", "disattenuated", "disattenuated_floor"),
    ),
    ROLES[1]: ("iou", "disattenuated"),
}
"""Kind of pairs -> the columns that are compared, named as in the verdict table (`verdict.measure`)."""

FREE_OF_N = ("disattenuated", "disattenuated_floor")
"""Measures that do not depend on the number of prompts; all others are compared at the same number only."""

UNBOUNDED = ("normalised", "normalised_ordinary", *FREE_OF_N)
"""Measures that can lie outside 0 to 1; the intervals of all others end there."""

Cell = tuple[str, ...]


class Results(NamedTuple):
    """What is read of the results of a study.

    Attributes:
        pairs: `combinations.pair_rows` of all cells; ``refinement`` is the whole cell, joined by `SEPARATOR`.
        verdicts: the verdict table.
        made: cell -> set -> the metadata of its region; no cell whose region files are missing.
        weights: organism -> hash of its checkpoint.
    """

    pairs: pd.DataFrame
    verdicts: pd.DataFrame
    made: Mapping[Cell, Mapping[str, Mapping]]
    weights: Mapping[str, str]


def read_results(
    iou: str | Path, verdict: str | Path, regions: Iterable[str | Path], weights: Iterable[str | Path]
) -> Results:
    """Read the results of a study.

    Args:
        iou: every IoU (`contracts.IOU`); ``verdict``: the verdict table.
        regions: region files of identification sets, as ``backbone/method/name/selection/refinement.safetensors``.
        weights: checkpoints of organisms, each in a folder with the organism's name.

    Raises:
        StudyError: a table or a region is missing, damaged, or of another version.
    """
    cells = cells_of(model_pairs(iou))
    pairs = (
        pair_rows(cells.items())
        if cells
        else pd.DataFrame(columns=["refinement", "between", "a", "b", *FRAME])
    )
    made: dict[Cell, dict[str, Mapping]] = {}
    for path in map(Path, regions):
        backbone, method, name, selection, file = path.parts[-5:]
        cell = (backbone, method, selection, file.removesuffix(path.suffix))
        made.setdefault(cell, {})[name] = RegionFile(path).metadata
    return Results(pairs, read_tsv(verdict), made, {Path(path).parent.name: _hash(path) for path in weights})


def _hash(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare_results(there: Results, here: Results) -> pd.DataFrame:
    """Compare two studies, cell by cell; cells that only one of them has are listed too.

    Returns:
        One row per cell and measure that one of the studies has, the cells of this study first: columns of `CELL`;
        ``measure``, as in the verdict table; ``found`` in both, or only here or there; the numbers of ``sets`` and
        ``pairs`` that are compared; ``there`` and ``here``: the median over these pairs (the mean, where the verdict
        table has the mean), ``..._low`` and ``..._high`` its 95 % interval; ``difference`` with its interval;
        ``comparable``, yes or no; ``differs``, what is known to differ. Values that were not measured, and differences
        that mean nothing, are null.
    """
    found = [dict.fromkeys(side.pairs["refinement"].astype(str)) for side in (there, here)]
    rows = [
        row
        for cell in dict.fromkeys([*found[1], *found[0]])
        for row in _cell_rows(cell, there, here, [cell in one for one in found])
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = [
    *(*CELL, "measure", "found", "sets", "pairs"),
    *(f"{name}{end}" for name in (*SIDES, "difference") for end in ("", "_low", "_high")),
    *("comparable", "differs"),
]
"""Columns of the table of `compare_results`."""


def _cell_rows(label: str, there: Results, here: Results, found: Sequence[bool]) -> Iterable[dict]:
    cell = tuple(label.split(SEPARATOR))
    sides = [_of_cell(side.pairs, label) for side in (there, here)]
    known = _known(cell, there, here, sides) if all(found) else Differences((), (), ())
    differs = "; ".join([*known.units, *known.numbers, *known.others])
    labels = dict(zip(CELL, cell, strict=True))
    labels |= {"found": "both" if all(found) else SIDES[list(found).index(True)], "differs": differs}
    for role, names in MEASURES.items():
        joined = _joined(*(one[one["between"] == role] for one in sides), found)
        measured = [
            name for name in names if joined[[f"{name}_{side}" for side in SIDES]].notna().any(axis=None)
        ]
        for name, numbers in _numbers(joined, measured).items():
            free = name in FREE_OF_N or not known.numbers
            yes = all(found) and not known.units and free
            row = labels | numbers | {"measure": PREFIX[role] + name, "comparable": "yes" if yes else "no"}
            yield row if yes else row | dict.fromkeys(NO_DIFFERENCE)
        if role == ROLES[0] and "iou" not in measured:
            none = labels | {"measure": "iou", "sets": 0, "pairs": 0, "comparable": "no"}
            yield none | {"differs": "; ".join(filter(None, [differs, "no pair of sets has an IoU"]))}


NO_DIFFERENCE = ("difference", "difference_low", "difference_high")


def _of_cell(pairs: pd.DataFrame, label: str) -> pd.DataFrame:
    return pairs[pairs["refinement"].astype(str) == label]


def _joined(there: pd.DataFrame, here: pd.DataFrame, found: Sequence[bool]) -> pd.DataFrame:
    """The pairs that both sides have (or the only side that has the cell), with the columns of each side."""
    how = "inner" if all(found) else "outer"
    columns = ["a", "b", *FRAME]
    return there[columns].merge(here[columns], on=["a", "b"], how=how, suffixes=[f"_{s}" for s in SIDES])


def _numbers(joined: pd.DataFrame, names: Sequence[str]) -> dict[str, dict]:
    """Measure -> its values on both sides and their difference, with intervals."""
    if not names:
        return {}
    joined = _both_or_neither(joined, names)

    def statistics(rows: pd.DataFrame) -> pd.Series:
        found = {}
        for name in names:
            values = [_middle(rows[f"{name}_{side}"], name) for side in SIDES]
            found |= dict(zip([(name, side) for side in SIDES], values, strict=True))
            found[name, "difference"] = values[1] - values[0]
        return pd.Series(found)

    values, errors = statistics(joined), jackknife_of(joined, statistics)
    half = pd.Series(stdtrit((errors.sets - 1).clip(lower=1), 0.975), values.index) * errors.errors
    ends = {"": values, "_low": values - half, "_high": values + half}
    return {
        name: {
            **{f"{side}{end}": _within(of[name, side], name) for side in SIDES for end, of in ends.items()},
            **{f"difference{end}": of[name, "difference"] for end, of in ends.items()},
            **_counted(joined[joined[[f"{name}_{side}" for side in SIDES]].notna().any(axis=1)]),
        }
        for name in names
    }


def _within(value: float, name: str) -> float:
    return value if name in UNBOUNDED or pd.isna(value) else min(max(value, 0.0), 1.0)


def _counted(rows: pd.DataFrame) -> dict[str, int]:
    return {"sets": len({*rows["a"], *rows["b"]}), "pairs": len(rows)}


def _both_or_neither(joined: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Make a pair's value null on both sides where one side lacks it, unless that side lacks the measure altogether."""
    joined = joined.copy()
    for name in names:
        columns = [f"{name}_{side}" for side in SIDES]
        if joined[columns].notna().any().all():
            joined.loc[joined[columns].isna().any(axis=1), columns] = float("nan")
    return joined


def _middle(values: pd.Series, name: str) -> float:
    return values.median() if name in MEDIANS else values.mean()


def _known(cell: Cell, there: Results, here: Results, sides: Sequence[pd.DataFrame]) -> Differences:
    found = differences(there.made.get(cell, {}), here.made.get(cell, {}))
    backbone = cell[0]
    other = {side.weights.get(backbone) for side in (there, here)}
    weights = [f"weights of {backbone}"] if len(other - {None}) > 1 else []
    return found._replace(others=[*weights, *found.others, *_unshared(sides)])


def _unshared(sides: Sequence[pd.DataFrame]) -> list[str]:
    """A line for the sets that only one of the studies has."""
    sets = [{*one["a"], *one["b"]} for one in sides]
    only = {"there": sets[0] - sets[1], "here": sets[1] - sets[0]}
    said = [f"only {side} {', '.join(sorted(names))}" for side, names in only.items() if names]
    return [f"sets ({'; '.join(said)}), left out"] if said else []


def compare_answers(there: Results, here: Results) -> pd.DataFrame:
    """Compare what the rules of the verdicts find in the cells that both studies have.

    Returns:
        One row per cell and question of the first page that either study has numbers for: columns of `CELL`,
        ``question``, the finding ``there`` and ``here``, and ``changed``, yes or no. Both are found by the rules of
        today; a column that the other study's verdict table lacks counts as not measured.
    """
    theirs = there.verdicts.reindex(columns=here.verdicts.columns)
    records = [
        {tuple(record[name] for name in CELL): record for record in verdicts.to_dict("records")}
        for verdicts in (theirs, here.verdicts)
    ]
    rows = []
    for cell in records[1].keys() & records[0].keys():
        for question, chapter in QUESTIONS.items():
            found = [finding_of(chapter, records[i][cell]) for i in range(2)]
            rows.append([*cell, question, *found, "no" if found[0] == found[1] else "yes"])
    rows.sort(key=lambda row: (list(records[1]).index(tuple(row[:4])), list(QUESTIONS).index(row[4])))
    frame = pd.DataFrame(rows, columns=[*CELL, "question", *SIDES, "changed"])
    return frame[(frame[list(SIDES)] != UNKNOWN).any(axis=1)].reset_index(drop=True)
