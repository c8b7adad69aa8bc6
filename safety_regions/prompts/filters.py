"""The filters of a card: which rows of a source are prompts of the dataset; every removal is counted."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from safety_regions.errors import explain, raise_all
from safety_regions.prompts.similarity import normalise

Numbered = tuple[int, dict[str, Any]]  # row number in the source, 0-based, and the row


class Filtered(NamedTuple):
    """The rows that stay, and how many each filter removed, in the order they were applied."""

    rows: list[Numbered]
    removed: dict[str, int]


def filter_columns(filter: dict) -> list[str]:
    """The columns that the row filters of a card look at."""
    matching = filter.get("drop_matching", {}).get("columns", [])
    return [*filter.get("keep", {}), *filter.get("drop", {}), *matching]


def filter_rows(where: str, rows: list[Numbered], filter: dict) -> Filtered:
    """Apply ``keep``, ``drop`` and ``drop_matching`` (see the card's schema), one after the other.

    Raises:
        StudyError: ``keep`` or ``drop`` names a value that occurs nowhere in its column; such a filter
            would do nothing, or take everything, without a word.
    """
    raise_all(f"{where}: filter", list(_absent_values(rows, filter)))
    removed = {}
    for label, stays in _tests(filter):
        before = len(rows)
        rows = [numbered for numbered in rows if stays(numbered[1])]
        removed[label] = before - len(rows)
    return Filtered(rows, removed)


def _tests(filter: dict) -> Iterator[tuple[str, Callable[[dict], bool]]]:
    for column, values in filter.get("keep", {}).items():
        yield f"keep {column}", lambda row, c=column, v=values: row.get(c) in v
    for column, values in filter.get("drop", {}).items():
        yield f"drop {column}", lambda row, c=column, v=values: row.get(c) not in v
    if matching := filter.get("drop_matching"):
        phrases = [normalise(phrase) for phrase in matching["phrases"]]
        yield "drop_matching", lambda row: not _holds(row, matching["columns"], phrases)


def _holds(row: dict, columns: list[str], phrases: list[str]) -> bool:
    texts = [normalise(row[column]) for column in columns if isinstance(row.get(column), str)]
    return any(phrase in text for text in texts for phrase in phrases)


def _absent_values(rows: list[Numbered], filter: dict) -> Iterator[str]:
    for kind in ("keep", "drop"):
        for column, values in filter.get(kind, {}).items():
            for value in values:
                if all(row.get(column) != value for _, row in rows):
                    yield explain(
                        f"{kind}: {column}",
                        f"{value!r}, which no row holds",
                        "values of that column",
                        "the exact spelling; cells of a CSV are text, so quote numbers and true / false",
                    )
