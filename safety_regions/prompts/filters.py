"""The filters of a card: which rows of a source are prompts of the dataset; removed rows are counted."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from safety_regions.errors import explain, raise_all
from safety_regions.prompts.similarity import normalise

Numbered = tuple[int, dict[str, Any]]  # row number in the source, 0-based, and the row


class Filtered(NamedTuple):
    """The remaining rows, and the number of rows that each filter removed, in the order of the filters."""

    rows: list[Numbered]
    removed: dict[str, int]


def filter_columns(filter: dict) -> list[str]:
    """The columns that the row filters of a card use."""
    matching = filter.get("drop_matching", {}).get("columns", [])
    return [*filter.get("keep", {}), *filter.get("drop", {}), *matching]


def filter_rows(where: str, rows: list[Numbered], filter: dict) -> Filtered:
    """Apply ``keep``, ``drop`` and ``drop_matching`` (see the card's schema), one after the other.

    Raises:
        StudyError: ``keep`` or ``drop`` names a value that does not occur in its column; such a filter would
            silently remove nothing or everything.
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
                        f"{kind}: {column}", f"{value!r}, which occurs in no row", "values of this column",
                        "the exact spelling; CSV cells are text, so quote numbers and true / false in the card",
                    )  # fmt: skip
