"""The page on what regions do: a sentence and a row for each cell, operation and dose; then transfer between sets."""

from collections.abc import Mapping

import pandas as pd

from safety_regions.report.behaviour import CELL
from safety_regions.report.pages.behaviour_answers import behaviour_answers
from safety_regions.report.pages.render import Table, render
from safety_regions.units.behaviour import LOG_ODDS

NUMBERS = (
    "effect (95 %)",
    "random (range of draws)",
    "p",
    "ordinary answers",
    "of controls",
    "refused",
    "ordinary refused",
    "incoherent",
)
SCORED = "judges and tasks"
"""The column of other measures of generated answers, where there are any."""
DIRECTED = "without the direction"
"""The column of the effect of the whole model without the direction of refusals, where it was measured."""


CONSTRAINED = (
    "rate",
    "seeds",
    "before",
    "free",
    "region",
    "controls",
    "region - free (95 %)",
    "region - control (95 %)",
    "refused",
    "task loss",
)


RANKS = ("models", "Spearman")


def behaviour_page(
    rows: pd.DataFrame,
    transfer: pd.DataFrame,
    titles: Mapping[str, str],
    constraint: pd.DataFrame,
    ranks: pd.DataFrame,
) -> str:
    """Render the page.

    Args:
        rows: the table of `report.behaviour.behaviour_rows`.
        transfer: a `contracts.TRANSFER` table.
        titles: operation -> what it does, as a participle.
        constraint: the table of `report.constraint.constraint_rows`; empty if nothing was fine-tuned.
        ranks: the table of `report.behaviour.measure_ranks`.
    """
    cells = []
    for key, one in rows.groupby(CELL, sort=False) if len(rows) else ():
        records = one.to_dict("records")
        sentences = [sentence(row, titles) for row in records]
        more = {DIRECTED: [_number(row["without_direction"], 2) for row in records],
                SCORED: [row["scored"] or "–" for row in records]}  # fmt: skip
        more = {name: texts for name, texts in more.items() if set(texts) != {"–"}}
        shown = [[*effect_texts(row), *extra] for row, *extra in zip(records, *more.values(), strict=True)]
        table = Table(["operation", *NUMBERS, *more], shown, numbers=[*NUMBERS, *more])
        cells.append(
            {"name": " / ".join(key), "n": int(one["n"].iloc[0]), "table": table, "sentences": sentences}
        )
    plans = _plans(constraint) if len(constraint) else []
    shown = [[r.backbone, r.measure, str(r.models), _number(r.spearman, 2)] for r in ranks.itertuples()]
    ranked = Table(["backbone", "measure", *RANKS], shown, numbers=RANKS) if shown else None
    return render(
        "behaviour.html.j2",
        answers=behaviour_answers(rows, constraint),
        cells=cells,
        transfer=_transfer(transfer),
        plans=plans,
        ranked=ranked,
    )


def _plans(constraint: pd.DataFrame) -> list[dict]:
    """A table for each cell and plan, and a sentence for each arm and learning rate."""
    found = []
    for key, one in constraint.groupby([*CELL, "plan"], sort=False):
        records = one.to_dict("records")
        shown = [[record["arm"], *_constrained(record)] for record in records]
        sentences = [f"{r['arm']}, rate {r['learning_rate']:g}: {r['conclusion']}." for r in records]
        table = Table(["arm", *CONSTRAINED], shown, numbers=CONSTRAINED)
        found.append({"name": " / ".join(key[:-1]), "plan": key[-1], "sentences": sentences, "table": table})
    return found


def _constrained(row: Mapping) -> list[str]:
    """One constrained model as texts, in the order of `CONSTRAINED`."""
    odds = [_number(row[name], 2) for name in ("before", "free", "region")]
    intervals = [
        f"{_number(row[name], 2)} ({_number(row[f'{name}_low'], 2)} to {_number(row[f'{name}_high'], 2)})"
        for name in ("kept", "beyond")
    ]
    refused = " → ".join(_number(row[name], 2) for name in ("refused_before", "refused_free", "refused"))
    task = " → ".join(_number(row[name], 2) for name in ("task_before", "task_free", "task"))
    return [f"{row['learning_rate']:g}", str(row["seeds"]), *odds, row["controls"], *intervals, refused, task]


def effect_texts(row: Mapping) -> list[str]:
    """One comparison as texts, the operation and then `NUMBERS`."""
    return [
        f"{row['operation']} {row['dose']:g}",
        f"{_number(row['effect'], 2)} ({_number(row['low'], 2)} to {_number(row['high'], 2)})",
        f"{_number(row['random'], 2)} ({_number(row['random_low'], 2)} to {_number(row['random_high'], 2)})"
        if row["draws"]
        else "–",
        _number(row["p"]),
        _number(row["answers"]),
        _number(row["answers_matched"]),
        f"{_number(row['refused_before'], 2)} → {_number(row['refused'], 2)}",
        _number(row["over_refused"], 2),
        _number(row["incoherent"], 2),
    ]


def sentence(row: Mapping, titles: Mapping[str, str]) -> str:
    """One comparison in a sentence."""
    said = (
        f"With the region {titles[row['operation']]} (dose {row['dose']:g}), the log-odds of refusing change by "
        f"{row['effect']:+.2f} nats (95 % {row['low']:+.2f} to {row['high']:+.2f})"
    )
    if row["draws"]:
        said += (
            f"; with random regions by {row['random']:+.2f} ({row['draws']} draws, "
            f"{row['random_low']:+.2f} to {row['random_high']:+.2f})"
        )
    return f"{said}. {row['conclusion'].capitalize()}."


def _transfer(transfer: pd.DataFrame) -> Table | None:
    shown = transfer[transfer["measure"].astype(str) == LOG_ODDS]
    if shown.empty:
        return None
    columns = {
        "sets": "sets",
        "own": "on the own set",
        "others": "on other sets",
        "own_advantage": "advantage of the own set",
        "own_p": "p",
        "mantel": "Mantel r",
        "mantel_p": "p ",
    }
    rows = [
        [
            " / ".join(str(r[key]) for key in CELL),
            f"{r['operation']} {r['dose']:g}",
            *(_number(r[c]) for c in columns),
        ]
        for r in shown.to_dict("records")
    ]
    return Table(["regions", "operation", *columns.values()], rows, numbers=columns.values())


def _number(value: float | None, digits: int = 3) -> str:
    if value is None or pd.isna(value):
        return "–"
    return str(value) if isinstance(value, int) else f"{round(value, digits) + 0.0:.{digits}f}"
