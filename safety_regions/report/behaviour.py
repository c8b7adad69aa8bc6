"""What regions do, in numbers and words: effects of a cell's regions beside those of their controls.

Nothing is claimed without controls. A region does *more than* a control if its effect has the expected direction and

- a random control has at least `ENOUGH` draws, of which so few have as large an effect that p <= `LEVEL`, and its mean
  effect is smaller;
- for a control without draws, the 95 % interval of the difference (paired by prompt) excludes zero.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from safety_regions.behaviour.effects import ALL
from safety_regions.units.behaviour import (
    ANSWER_NLL,
    CHANGE,
    DIRECTION,
    DRAWN,
    FORWARD,
    HARM,
    HARMFUL,
    INCOHERENT,
    LOG_ODDS,
    MAGNITUDE,
    MATCHED,
    NONE,
    ORDINARY,
    OTHER,
    RANDOM,
    REFUSED,
    ROLES,
    TASK,
    UTILITY,
)

CELL = ["backbone", "method", "selection", "refinement"]
PLACE = [*CELL, "operation", "dose"]
TEXTS = [*CELL, "name", "operation", "measure", "evaluated", "against", "of"]
ENOUGH, LEVEL = 19, 0.05
NAMES = {
    RANDOM: "random regions",
    MATCHED: "random regions of the same weight magnitudes",
    MAGNITUDE: "the largest weights",
    CHANGE: "the weights that alignment changed most",
    UTILITY: "the regions of utility sets",
    OTHER: "the regions of other sets",
}
"""Controls in words. Parts of a region (core, private) answer another question and decide nothing here. Neither does
the model without the direction of refusals: it is no region of the same size."""


class Beyond(NamedTuple):
    """The controls that regions do more than, those that they do not, and those of which nothing can be said."""

    more: list[str]
    not_more: list[str]
    unknown: list[str]


def main_rows(effects: pd.DataFrame) -> pd.DataFrame:
    """The rows of the mean over all sets, or of the only set, on all prompts of a role; controls are merged over sets.

    Args:
        effects: a `contracts.EFFECTS` table.
    """
    frame = effects.astype(dict.fromkeys(TEXTS, str))
    frame = frame[frame["evaluated"].isin(ROLES)]
    several = frame.groupby(CELL)["name"].transform(lambda names: (names == ALL).any())
    return frame[(frame["name"] == ALL) | ~several]


def direction(operation: str, dose: float, into_base: Mapping[str, bool]) -> int:
    """The sign of a change in the log-odds of refusing that would show that a region carries refusals.

    +1 for an operation that brings alignment into the base model, or amplifies; -1 for one that takes away or damages.
    """
    return 1 if into_base[operation] or (operation == "scale" and dose > 1) else -1


def beyond(rows: pd.DataFrame, sign: int) -> Beyond:
    """Judge the effect of regions against each of their controls.

    Args:
        rows: the rows of one place with one measure and one kind of prompts.
        sign: the direction that counts, from `direction`.
    """
    found = Beyond([], [], [])
    for control, same in rows.groupby("against", sort=False):
        if control not in NAMES:
            continue
        right = (sign * same["effect"] > 0).all()
        if control in DRAWN:
            if (same["draws"] < ENOUGH).any():
                found.unknown.append(control)
                continue
            more = right and (same["p"] <= LEVEL).all() and (sign * same["difference"] > 0).all()
        else:
            ends = same[["difference_low", "difference_high"]]
            if ends.isna().any(axis=None):
                found.unknown.append(control)
                continue
            more = right and (sign * ends > 0).all(axis=None)
        (found.more if more else found.not_more).append(control)
    return found


def behaviour_rows(effects: pd.DataFrame, into_base: Mapping[str, bool]) -> pd.DataFrame:
    """One row per cell, operation and dose: the effect on refusals and on answers, and what it exceeds.

    Returns:
        `PLACE`; ``n`` harmful prompts; ``effect``, ``low``, ``high`` (log-odds of refusing, harmful prompts, nats);
        ``random``, ``random_low``, ``random_high``, ``draws``, ``p`` (the same of random regions); ``answers``,
        ``answers_matched`` (negative log-likelihood of ordinary answers, nats a token, effect of the region and of
        matched regions, or random ones where there are none); ``refused``, ``refused_before``, ``over_refused``,
        ``incoherent`` (rates of generated answers); ``scored`` (other measures of generated answers, a judge's or a
        task's, before and after, as text); ``without_direction`` (effect on the log-odds of taking the direction of
        refusals out of the whole model, NaN if it was not measured); ``more``, ``not_more``, ``unknown`` (controls,
        joined by commas); ``conclusion``.
    """
    rows: list[dict] = []
    for key, place in main_rows(effects).groupby(PLACE, sort=False):
        of = {pair: part for pair, part in place.groupby(["measure", "evaluated"])}
        main = of.get((LOG_ODDS, HARMFUL))
        if main is None:
            continue
        row, labels = main[main["against"] == NONE].iloc[0], dict(zip(PLACE, key, strict=True))
        judged = beyond(main, direction(labels["operation"], labels["dose"], into_base))
        drawn = main[main["against"] == RANDOM]
        answers, generated = of.get((ANSWER_NLL, ORDINARY)), _generated(of)
        rows.append(
            labels
            | {"n": row["n"], "effect": row["effect"], "low": row["effect_low"], "high": row["effect_high"]}
            | {
                "random": drawn["control_effect"].mean(),
                "random_low": drawn["control_low"].min(),
                "random_high": drawn["control_high"].max(),
                "draws": int(drawn["draws"].min()) if len(drawn) else 0,
                "p": drawn["p"].max(),
                "without_direction": main[main["against"] == DIRECTION]["control_effect"].mean(),
            }
            | _answers(answers)
            | generated
            | {name: ", ".join(names) for name, names in judged._asdict().items()}
            | {"conclusion": conclusion(judged)}
        )
    return pd.DataFrame(rows)


def measure_ranks(ablation: pd.DataFrame) -> pd.DataFrame:
    """How forward-only measures rank changed models, beside the refusals that these models generate.

    Args:
        ablation: a `contracts.ABLATION` table.

    Returns:
        One row per backbone and measure of harmful prompts: ``backbone``, ``measure``, ``models`` (changed models of
        which both were measured), ``spearman`` (rank correlation with the refusal rate; NaN for fewer than three models
        or where either does not vary).
    """
    arm = [*CELL, "name", "operation", "dose", "control", "of", "draw"]
    texts = [name for name in (*arm, "measure", "evaluated") if name not in ("dose", "draw")]
    frame = ablation.astype(dict.fromkeys(texts, str))
    one_model = frame["control"] != DIRECTION  # the same model beside every operation
    frame = frame[(frame["evaluated"] == HARMFUL) & one_model]
    wide = frame.pivot_table(index=arm, columns="measure", values="value").reset_index()
    rows = []
    for backbone, models in wide.groupby("backbone", sort=False) if REFUSED in wide else ():
        for measure in (name for name in FORWARD if name in models):
            both = models[[measure, REFUSED]].dropna().rank()
            varies = len(both) > 2 and both.nunique().min() > 1
            found = both.corr().iloc[0, 1] if varies else float("nan")
            rows.append({"backbone": backbone, "measure": measure, "models": len(both), "spearman": found})
    return pd.DataFrame(rows, columns=["backbone", "measure", "models", "spearman"])


MORE, NOT_MORE = "more than every control", "not more than every control"
ONLY_RANDOM = "more than random regions, the only controls"
"""Ranks have no control of size or of change, and a config can leave them out."""
TOO_FEW = "no control with enough draws"


def finding(row: Mapping) -> str:
    """What a row of `behaviour_rows` finds, in a few words: ``conclusion`` without the names of the controls."""
    if row["not_more"]:
        return NOT_MORE
    if row["unknown"] or not row["more"]:
        return TOO_FEW
    return ONLY_RANDOM if _drawn(row["more"].split(", ")) else MORE


def conclusion(judged: Beyond) -> str:
    """What the comparison with controls says, in a sentence without its full stop."""
    more, not_more, unknown = ([NAMES[name] for name in names] for names in judged)
    if not (more or not_more):
        return "nothing can be said: no control with enough draws"
    if not (not_more or unknown):
        only = _drawn(judged.more)
        of = f"{_listed(more)}; there is no other control" if only else "every control"
        return f"the effect is larger than that of {of}"
    said = [f"larger than that of {_listed(more)}"] if more else []
    said += [f"not larger than that of {_listed(not_more)}"] if not_more else []
    said = [f"the effect is {', but '.join(said)}"]
    said += [f"too few draws of {_listed(unknown)}"] if unknown else []
    return "; ".join(said)


def _drawn(controls: Sequence[str]) -> bool:
    """Whether all of these controls are random."""
    return set(controls) <= set(DRAWN)


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _answers(rows: pd.DataFrame | None) -> dict[str, float | None]:
    if rows is None:
        return {"answers": None, "answers_matched": None}
    own = rows[rows["against"] == NONE]["effect"].iloc[0]
    controls = [rows[rows["against"] == kind]["control_effect"] for kind in (MATCHED, RANDOM)]
    known = [part.iloc[0] for part in controls if len(part)]
    return {"answers": own, "answers_matched": known[0] if known else None}


def _generated(of: Mapping[tuple[str, str], pd.DataFrame]) -> dict[str, float | None]:
    def value(measure: str, role: str, column: str) -> float | None:
        rows = of.get((measure, role))
        return None if rows is None else rows[rows["against"] == NONE][column].iloc[0]

    return {
        "refused": value(REFUSED, HARMFUL, "changed"),
        "refused_before": value(REFUSED, HARMFUL, "unmodified"),
        "over_refused": value(REFUSED, ORDINARY, "changed"),
        "incoherent": value(INCOHERENT, HARMFUL, "changed"),
        "scored": ", ".join(
            f"{measure} {value(measure, role, 'unmodified'):.2f} → {value(measure, role, 'changed'):.2f}"
            for measure, role in of
            if measure.startswith((HARM, TASK)) and role in ROLES
        ),
    }
