"""Answers for a backbone in a few sentences: are regions needed, are they enough, does constraining them ensure safety?

They count what the rules of `report.behaviour` and `report.constraint` conclude, and add nothing.
"""

from collections.abc import Iterator

import pandas as pd

from safety_regions.report.behaviour import CELL, MORE, ONLY_RANDOM, TOO_FEW, finding
from safety_regions.report.constraint import KEEPS, UNKNOWN, UNTESTED
from safety_regions.units.behaviour import REFUSE

ASKED = {
    "base": ("Needed?", "Reset to the model before alignment", "take away"),
    "transplant": ("Enough?", "Transplanted into the model before alignment", "bring"),
}
"""Operation -> the question that it answers, and words."""


def behaviour_answers(rows: pd.DataFrame, constraint: pd.DataFrame) -> dict[str, list[str]]:
    """Backbone -> sentences.

    Args:
        rows: the table of `report.behaviour.behaviour_rows`.
        constraint: the table of `report.constraint.constraint_rows`.
    """
    found: dict[str, list[str]] = {}
    for operation in ASKED if len(rows) else ():
        for backbone, one in rows[rows["operation"] == operation].groupby("backbone", sort=False):
            found.setdefault(str(backbone), []).append(_effects(operation, one))
    for backbone, one in constraint.groupby("backbone", sort=False) if len(constraint) else ():
        found.setdefault(str(backbone), []).extend(_constraints(one))
    return found


def _effects(operation: str, rows: pd.DataFrame) -> str:
    """What the largest dose of an operation does in all cells of a backbone."""
    question, changed, does = ASKED[operation]
    last = rows[rows["dose"] == rows.groupby(CELL)["dose"].transform("max")]
    found = last.apply(finding, axis=1)
    beyond, judged = last[found.isin([MORE, ONLY_RANDOM])], last[found != TOO_FEW]
    if judged.empty:
        return f"{question} Nothing can be said: {TOO_FEW}."
    regions = _counted(beyond, judged)
    said = f"{question} {changed}, {regions} {does} more of the log-odds of refusing than every control"
    if len(beyond) and len(beyond) < len(judged):
        said += f" ({', '.join(_cells(beyond))})"
    rates = last.dropna(subset=["refused", "refused_before"])
    if len(rates):
        low, high = rates["refused"].min(), rates["refused"].max()
        to = f"{low:.2f}" if round(low, 2) == round(high, 2) else f"between {low:.2f} and {high:.2f}"
        said += f". Refused harmful prompts go from {rates['refused_before'].iloc[0]:.2f} to {to}"
    return f"{said}."


def _constraints(rows: pd.DataFrame) -> Iterator[str]:
    attacks = rows[rows["attack"] != REFUSE]
    if len(attacks):
        yield f"Can safety be ensured by constraining a region? {_ensured(attacks)}"
    taught = rows[(rows["attack"] == REFUSE) & (rows["outcome"] != UNKNOWN)]
    if len(taught):
        raised = taught[taught["outcome"] == KEEPS]
        yield (
            f"Trained to refuse, a region raises refusals more than every control in {len(raised)} of {len(taught)} "
            "comparisons."
        )


def _ensured(rows: pd.DataFrame) -> str:
    tested = rows[~rows["outcome"].isin([UNTESTED, UNKNOWN])]
    if tested.empty:
        known = (rows["outcome"] == UNTESTED).any()
        return (
            "Not answered: free training does not lower refusals."
            if known
            else "Not answered: it takes three seeds and controls."
        )
    kept = tested["outcome"] == KEEPS
    plans = ", ".join(dict.fromkeys(tested["plan"]))
    said = (
        f"More refusals were kept than with every control, and the task was learned, in {kept.sum()} of {len(tested)} "
        f"comparisons (a region, an arm, a learning rate; plans {plans})"
    )
    by_arm = kept.groupby([tested[name] for name in (*CELL, "arm")], sort=False).all()
    always = [" ".join(key[1:]) for key, all_kept in by_arm.items() if all_kept]
    if not kept.any():
        return f"Not by any that was tested: {said[0].lower()}{said[1:]}."
    if not always:
        return f"Not in general: {said[0].lower()}{said[1:]}, and for no region and arm in all of them."
    return f"{said}. In every comparison of theirs: {', '.join(always)}."


def _counted(some: pd.DataFrame, among: pd.DataFrame) -> str:
    if len(among) == 1:
        return f"{_cells(among)[0]} does{'' if len(some) else ' not'}"
    return f"{len(some)} of {len(among)} kinds of region"


def _cells(rows: pd.DataFrame) -> list[str]:
    return [" ".join(key[1:]) for key in rows[CELL].itertuples(index=False, name=None)]
