"""The answers of a study: what the rules of the verdicts find, in a line or two for each backbone.

Nothing is decided here. Cells are listed by what `verdict.sentences` and `report.behaviour` say of them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from safety_regions.report import behaviour
from safety_regions.report.pages.numbers import prompts
from safety_regions.report.verdict.sentences import (
    CORE,
    ORDINARY,
    PLANT,
    RESPONSES,
    SETS,
    SHARED,
    Rule,
    compared,
    finding_of,
)
from safety_regions.study.behaviour import GIVEN

RAW = "raw"
QUESTIONS: dict[str, Sequence[Rule]] = {
    "Do two harmful sets give the same region?": SETS,
    "Do they share more than a harmful and an ordinary set do?": ORDINARY,
    "Do all sets have a core in common?": CORE,
    "Do regions follow the prompts or the responses?": RESPONSES,
    "Do scores find the planted region?": PLANT,
}
"""Question -> the chapter of the verdict that answers it."""

UNKNOWN = "not compared"
"""What a chapter finds where the study has no numbers for it."""

CHANGED = "Do changed regions change refusals more than controls do?"
NOT_HARM = (
    "A core need not be about harm: it includes what refusals share, and ordinary sets can have a part of it."
)
LANGUAGE = (
    "A refusal that is gone because language is gone says nothing about safety: see what the change costs."
)
REMARKS = {
    "a core as large as that of mixed prompts": NOT_HARM,
    "a core, smaller than that of mixed prompts": NOT_HARM,
    "more than with ordinary prompts": "At most the part above ordinary pairs is about harm, and it includes "
    "what refusals share and ordinary answers do not.",
    behaviour.MORE: LANGUAGE,
    behaviour.ONLY_RANDOM: LANGUAGE,
}
"""Finding -> what must be said beside it."""

MISSING = {
    "floor": ("floors: 5", "floors, what shared weights alone give"),
    "ceiling": ("ceilings: true", "ceilings, how alike two halves of one set are"),
    "same_prompts_iou": ("crossed: true", "whether regions follow the prompts or the responses"),
    "permuted_iou": ("label_permutations: 19", "a test of whether two sets differ at all"),
}
"""Column of the verdicts without a number -> the config key that asks for it, and what it adds."""


class Line(NamedTuple):
    """A question, the (finding, cells) that answer it, and what must be said beside them."""

    question: str
    found: Sequence[tuple[str, str]]
    remarks: Sequence[str]


class Answer(NamedTuple):
    """What was found on a backbone, and what that rests on."""

    backbone: str
    lines: Sequence[Line]
    basis: Sequence[str]


def answers(
    verdicts: pd.DataFrame, effects: pd.DataFrame, refusals: pd.DataFrame, data_free: Collection[str] = ()
) -> list[Answer]:
    """Answer the questions of the study for each backbone.

    Args:
        verdicts: the table of `verdict.measure`, or what was read back from its file.
        effects: the table of `report.behaviour.behaviour_rows`; without columns if regions were not changed.
        refusals: the table of `figures.refusals.refusal_rates`.
        data_free: methods whose scores depend on no prompt; they are baselines and answer nothing.

    Returns:
        One answer per backbone, about regions before any refinement (or after the first, if there are no raw ones).
    """
    found = []
    for backbone, cells in verdicts[~verdicts["method"].isin(data_free)].groupby("backbone", sort=False):
        first = cells[cells["refinement"] == _first(cells)]
        changed = effects[effects["backbone"] == backbone] if len(effects) else effects
        records = first.to_dict("records")
        lines = [_line(question, chapter, records) for question, chapter in QUESTIONS.items()]
        lines += [_changed(changed[changed["refinement"] == _first(changed)])] if len(changed) else []
        basis = [_basis(records), _refused(refusals[refusals["backbone"] == backbone])]
        found.append(Answer(backbone, [line for line in lines if line], basis))
    return found


def asked_for(verdicts: pd.DataFrame, changed: bool) -> list[tuple[str, str]]:
    """Return the config keys that the study leaves out, each with what it adds."""
    lacking = [hint for column, hint in MISSING.items() if verdicts[column].isna().all()]
    return lacking + ([] if changed else [("behaviour", "what regions do when their weights are changed")])


def _first(rows: pd.DataFrame) -> str:
    refinements = list(dict.fromkeys(rows["refinement"]))
    return RAW if RAW in refinements else refinements[0]


def _line(question: str, chapter: Sequence[Rule], records: Sequence[Mapping]) -> Line | None:
    """What a chapter finds in the cells, in the order of its rules; None if it was measured in none."""
    of_cells = [(finding_of(chapter, record), _name(record, records)) for record in records]
    order = {rule.finding: i for i, rule in enumerate(reversed(chapter))}
    if all(finding == UNKNOWN for finding, _ in of_cells):
        return None
    return _grouped(question, sorted(of_cells, key=lambda pair: order[pair[0]]))


def _changed(effects: pd.DataFrame) -> Line:
    records = effects.to_dict("records")
    said = [(behaviour.finding(r), f"{_name(r, records)} ({r['operation']} {r['dose']:g})") for r in records]
    return _grouped(CHANGED, said)


def _grouped(question: str, pairs: Sequence[tuple[str, str]]) -> Line:
    found: dict[str, list[str]] = {}
    for finding, name in pairs:
        found.setdefault(finding, []).append(name)
    remarks = dict.fromkeys(REMARKS[finding] for finding in found if finding in REMARKS)
    return Line(question, [(finding, ", ".join(names)) for finding, names in found.items()], list(remarks))


def _name(record: Mapping, records: Sequence[Mapping]) -> str:
    """The method of a cell, with its selection if the method has several, or if it is a region from a file."""
    selections = {one["selection"] for one in records if one["method"] == record["method"]}
    alone = len(selections) == 1 and record["method"] != GIVEN
    return record["method"] if alone else f"{record['method']} {record['selection']}"


def _basis(records: Sequence[Mapping]) -> str:
    """The range of the IoU beside that of chance, and how many pairs and prompts the answers rest on.

    A few whole layers are left out of the range: their IoU says little.
    """
    frame = pd.DataFrame(records)
    units, said = frame[[compared(record) for record in records]], []
    if len(units):
        said += [
            f"IoU of two sets {_span(units['iou'])} (chance {_span(units['chance'])}), medians of each method"
        ]
    pairs = int(frame["pairs"].max())
    said += [f"{pairs} pair{'s' * (pairs != 1)} of sets"]
    counts = list(dict.fromkeys(filter(None, map(prompts, records))))
    said += [f"{' or '.join(counts)} prompts per set"] if counts else []
    if (frame["shared"] > SHARED).any():
        said += [f"up to {100 * frame['shared'].max():.0f} % of the prompts of a set are also in another"]
    return f"{frame['refinement'].iloc[0].capitalize()} regions: {'; '.join(said)}."


def _refused(rates: pd.DataFrame) -> str:
    """How often the backbone refuses: regions of sets that it hardly refuses say little about refusal."""
    asked = rates[(rates["split"] == "identify") & rates["refusal_rate"].notna()]
    if not (asked["origin"] == "backbone").all():
        return "Its responses are not its own."
    kinds = {"of the prompts of harmful sets": "identification", "of ordinary ones": "utility"}
    of = {words: 100 * asked.loc[asked["role"] == role, "refusal_rate"] for words, role in kinds.items()}
    said = [f"{_span(share, 0)} % {words}" for words, share in of.items() if len(share)]
    return f"It refuses {' and '.join(said)}." if said else ""


def _span(values: pd.Series, digits: int = 3) -> str:
    low, high = f"{values.min():.{digits}f}", f"{values.max():.{digits}f}"
    return low if low == high else f"{low} to {high}"
