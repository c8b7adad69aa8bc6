"""Read the source of a dataset card that a study uses; `safety_regions.study.sources` chooses the source."""

import hashlib

from safety_regions.errors import StudyError, explain
from safety_regions.prompts.filters import filter_columns
from safety_regions.prompts.hub_rows import read_hub
from safety_regions.prompts.rows import Layout, Rows, read_rows
from safety_regions.study.sources import Source, delimiter_hint, shown_columns


def read_source(source: Source) -> tuple[Rows, dict]:
    """Read all rows of the source, unfiltered, with their origin for the metadata.

    Raises:
        StudyError: the source is missing or unreadable, or lacks a column that the card names.
    """
    read = _read_hub if source.path is None else _read_file
    rows, origin = read(source)
    needed = needed_columns(source)
    missing = [column for column in needed if column not in rows.columns]
    if missing:
        raise StudyError(
            explain(
                source.where,
                f"no column {', '.join(missing)}",
                f"columns among: {shown_columns(rows.columns, missing)}",
                f"`columns` and `filter` of the card's `{source.kind}`; a `header` if the file has none"
                + delimiter_hint(rows.columns),
            )
        )
    return rows, {"kind": source.kind, **origin}


def needed_columns(source: Source) -> list[str]:
    """Every column that the card names for this source, each once."""
    columns = source.columns
    single = ("id", "context_before", "prompt", "context_after", "response")
    named = [columns[key] for key in single if key in columns]
    return list(dict.fromkeys([*named, *category_columns(columns), *filter_columns(source.filter)]))


def category_columns(columns: dict) -> list[str]:
    """The columns whose labels form the category: none, one or several."""
    category = columns.get("category", [])
    return [category] if isinstance(category, str) else category


def _read_file(source: Source) -> tuple[Rows, dict]:
    given, path = source.given, source.path
    if not path.is_file():
        raise StudyError(explain(source.where, "no such file", **_MISSING_FILE[source.kind]))
    layout = Layout(
        given.get("encoding", "utf-8"), given.get("header"), given.get("delimiter"), needed_columns(source)
    )
    rows = read_rows(path, given.get("format", "jsonl"), layout)
    return rows, {"path": given["path"], "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


_MISSING_FILE = {
    "embedded": {"expected": "an embedded prompt set", "hint": "the complete catalog from the repository"},
    "file": {
        "expected": "the dataset's file",
        "hint": "a `path` that is absolute or relative to the working directory (to `data_dir`, where the config sets "
        "it), or no `data_dir` to read the card's `hub` source",
    },
}


def _read_hub(source: Source) -> tuple[Rows, dict]:
    given = source.given
    rows, commit = read_hub(source.where, given, needed_columns(source))
    asked = {"repo": given["repo"], "config": given.get("config"), "split": given["split"]}
    return rows, {**asked, "revision": given.get("revision", "main"), "commit": commit}
