"""The first page of a study: what was asked, what was found, how sure it is, and where to look next."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from safety_regions.report.behaviour import CELL
from safety_regions.report.pages.answers import answers, asked_for
from safety_regions.report.pages.behaviour import NUMBERS, effect_texts
from safety_regions.report.pages.behaviour_answers import behaviour_answers
from safety_regions.report.pages.figures import CHANGED, OVERLAP, WHOLE, Figure
from safety_regions.report.pages.numbers import number_rows, shown_columns
from safety_regions.report.pages.render import Table, render
from safety_regions.report.pages.studied import SETS, backbones_table, methods_table, sets_table
from safety_regions.report.verdict.sentences import explained

OPEN = 2
"""Backbones whose figures are shown at once; those of the others are shown when they are asked for."""

KEPT = {
    "kept": "region - free, nats (95 %)",
    "beyond": "region - control that keeps most, nats (95 %)",
}
"""Column of `report.constraint.constraint_rows` -> its name on the page."""


class Tables(NamedTuple):
    """The tables that the page shows, read back from their files; without columns where the study has none."""

    verdicts: pd.DataFrame
    refusals: pd.DataFrame
    shared: pd.DataFrame
    effects: pd.DataFrame
    constraint: pd.DataFrame


class Studied(NamedTuple):
    """What was studied.

    Attributes:
        backbones, methods, terms: see `study.facts`.
        data_free: labels of the methods whose scores depend on no prompt.
        metadata: backbone -> the metadata of its responses.
        versions: software -> its version.
        times: the table of `studied.times_table`.
        config: the config as YAML.
    """

    backbones: Mapping[str, Mapping[str, str]]
    methods: Mapping[str, Mapping[str, str]]
    terms: Mapping[str, Sequence[str]]
    data_free: Collection[str]
    metadata: Mapping[str, Mapping]
    versions: Mapping[str, str]
    times: Table | None
    config: str


def index_page(
    tables: Tables,
    ladders: Mapping[str, str],
    figures: Sequence[Figure],
    studied: Studied,
    pages: Sequence[str],
    files: Mapping[str, str],
) -> str:
    """Render the page.

    Args:
        ladders: backbone -> the SVG of `ladders.draw_ladders`.
        figures: see `figures.read_figures`.
        pages: the other pages of the report that the study has, relative to the first, without ``.html``.
        files: where to find more, path below the results -> contents.
    """
    columns = shown_columns(tables.verdicts)
    return render(
        "index.html.j2",
        studied=studied,
        counted=_counted(tables.refusals, studied),
        constrained=behaviour_answers(pd.DataFrame(), tables.constraint),
        answers=answers(tables.verdicts, tables.effects, tables.refusals, studied.data_free),
        asked_for=asked_for(tables.verdicts, changed=len(tables.effects) > 0),
        rules=explained(),
        ladders=ladders,
        effects=_effects(tables.effects),
        constraint=_constraint(tables.constraint),
        changed=_by_place(figure for figure in figures if figure.name in CHANGED),
        shelves=[_shelf(backbone, figures) for backbone in studied.backbones],
        open=OPEN,
        whole=[figure for figure in figures if not figure.place],
        columns=columns,
        rows=number_rows(tables.verdicts, columns),
        sets=sets_table(tables.refusals, tables.shared),
        about_sets=SETS,
        backbones=backbones_table(studied.metadata, studied.backbones),
        methods=methods_table(studied.methods),
        pages=pages,
        files=files,
    )


def _counted(refusals: pd.DataFrame, studied: Studied) -> str:
    sets = list(refusals.drop_duplicates("dataset")["role"])
    counts = {
        "model": len(studied.backbones),
        "method": len(studied.methods),
        "set": sets.count("identification"),
        "ordinary set": sets.count("utility"),
    }
    said = [f"{n} {name}{'s' * (n != 1)}" for name, n in counts.items()]
    return f"Studied: {said[0]}, {said[1]}, {said[2]} of harmful prompts, {said[3]}."


def _shelf(backbone: str, figures: Sequence[Figure]) -> dict:
    """The figures of a backbone: those of the whole, and for each method and selection those shown and those linked."""
    own = [figure for figure in figures if figure.place[:1] == (backbone,)]
    parts = [
        {
            "name": " / ".join(place[1:]),
            "shown": [figure for figure in one if figure.name in OVERLAP],
            "linked": [figure for figure in one if not figure.packed],
        }
        for place, one in _by_place(own)
        if len(place) == 3
    ]
    return {"backbone": backbone, "whole": [figure for figure in own if figure.name in WHOLE], "parts": parts}


def _by_place(figures: Iterable[Figure]) -> list[tuple[tuple[str, ...], list[Figure]]]:
    """The places of the figures, in order of appearance, each with its figures."""
    found: dict[tuple[str, ...], list[Figure]] = {}
    for figure in figures:
        found.setdefault(figure.place, []).append(figure)
    return list(found.items())


def _effects(effects: pd.DataFrame) -> Table | None:
    if effects.empty:
        return None
    rows = []
    for row in effects.to_dict("records"):
        operation, *numbers = effect_texts(row)
        rows.append([*(row[name] for name in CELL), operation, row["conclusion"], *numbers])
    return Table([*CELL, "operation", "conclusion", *NUMBERS], rows, numbers=NUMBERS)


def _constraint(constraint: pd.DataFrame) -> Table | None:
    if constraint.empty:
        return None
    rows = [
        [
            *(row[name] for name in CELL),
            *(row["plan"], row["arm"], f"{row['learning_rate']:g}"),
            *(f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})" for name in KEPT),
            row["conclusion"],
        ]
        for row in constraint.to_dict("records")
    ]
    return Table(
        [*CELL, "plan", "arm", "rate", *KEPT.values(), "conclusion"], rows, numbers=list(KEPT.values())
    )
