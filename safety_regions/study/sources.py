"""The three sources that a dataset card can name, and which of them a study reads.

==========  ======================================================  =================================================
source      location                                                used
==========  ======================================================  =================================================
embedded    ``prompts/`` of the catalog, written for this project   always, if the card has it
file        an absolute path; or relative to the study's            if the config sets ``data_dir``, the path is
            ``data_dir``, or else to the working directory          absolute, or the card names no other source
hub         the Hugging Face Hub                                    otherwise
==========  ======================================================  =================================================
"""

import csv
import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from safety_regions.errors import StudyError, explain

EMBEDDED_COLUMNS = {"prompt": "text", "category": "category", "id": "id"}
TEXT = "text"
"""The column of a file that has no names for columns: plain lines, or a JSON list of strings."""
DELIMITERS = (",", ";", "\t", "|")
"""The characters that may separate the cells of a CSV file."""
MAPPED = "prompt (required), id, category, response, context_before, context_after"


class Source(NamedTuple):
    """One source of a card, with the card's columns and filter filled in; ``where`` names it in errors.

    ``path`` is the file to read, None for the Hub; ``given`` is the card's entry for this source.
    """

    kind: str
    where: str
    path: Path | None
    given: dict
    columns: dict
    filter: dict


def choose_source(name: str, card: dict, data_dir: Path | None, catalog_dir: Path) -> Source:
    """The source of the card that this study reads (table above).

    Raises:
        StudyError: the card does not say which columns to read.
    """
    kind = _kind(card, data_dir)
    given = card[kind]
    folders = {"embedded": catalog_dir / "prompts", "file": data_dir or Path()}
    path = folders[kind] / given["path"] if kind in folders else None  # an absolute path replaces the folder
    where = f"dataset '{name}': {path or given['repo']}"
    columns = given.get("columns", card.get("columns", EMBEDDED_COLUMNS if kind == "embedded" else None))
    if columns is None:
        present = columns_of(path, given) if kind == "file" else []
        if present != [TEXT]:
            raise StudyError(_no_columns(where, present))
        columns = {"prompt": TEXT}
    return Source(kind, where, path, given, columns, given.get("filter", card.get("filter", {})))


def _kind(card: dict, data_dir: Path | None) -> str:
    if "embedded" in card or "file" not in card:
        return "embedded" if "embedded" in card else "hub"
    asked = data_dir is not None or "hub" not in card or Path(card["file"]["path"]).is_absolute()
    return "file" if asked else "hub"


def _no_columns(where: str, present: list[str]) -> str:
    shown = f"; the file has: {shown_columns(present)}{delimiter_hint(present)}" if present else ""
    return explain(
        where,
        "a card that does not say which columns to read",
        f"`columns` with the keys {MAPPED}",
        f"`columns: {{prompt: NAME}}` in the card{shown}",
    )


def columns_of(path: Path, given: dict) -> list[str]:
    """The columns of a local file, as far as they are seen without reading it all; empty if they are not.

    A file of plain lines and a JSON list of strings have the one column `TEXT`.
    """
    if "header" in given or given["format"] == "text":
        return list(given.get("header", [TEXT]))
    try:
        with open(path, encoding=given.get("encoding", "utf-8-sig"), newline="") as file:
            if given["format"] == "csv":
                first = next(file)
                said = sep_line(first)
                lines = file if said else chain([first], file)
                return next(csv.reader(lines, delimiter=given.get("delimiter") or said or ","), [])
            if given["format"] == "jsonl":
                return _keys([json.loads(next(line for line in file if line.strip()))])
            if given["format"] == "json":
                return _keys(json.load(file))
    except (OSError, ValueError, LookupError, StopIteration, csv.Error):
        pass  # reading the file says what is wrong with it
    return []


def _keys(rows: object) -> list[str]:
    if not isinstance(rows, list):
        return []
    if all(isinstance(row, str) for row in rows):
        return [TEXT]
    return list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))


def sep_line(line: str) -> str | None:
    """The delimiter that a first line ``sep=;``, as spreadsheets write it, names; None for any other line."""
    found = re.fullmatch(
        f'"?sep=([{re.escape("".join(DELIMITERS))}])"?', line.strip("\ufeff\r\n"), re.IGNORECASE
    )
    return found[1] if found else None


def shown_columns(columns: Sequence[str], asked: Sequence[str] = ()) -> str:
    """A file's columns for a message: each by its name, or by its place and length if the name has spaces.

    Without a header row a name with spaces may be a prompt. It is shown only if it differs little from a name in
    ``asked``, the columns that the card names.
    """
    plain = [name.casefold() for name in asked]

    def shown(number: int, column: str) -> str:
        if len(column.split()) == 1 and column == column.strip():
            return column
        if get_close_matches(column.casefold(), plain, n=1, cutoff=0.8):
            return f"'{column}'"
        return f"column {number} ({len(column)} characters)"

    return ", ".join(shown(number, column) for number, column in enumerate(columns, start=1)) or "none"


def delimiter_hint(columns: Sequence[str]) -> str:
    """What to try if the only column of a CSV file holds a delimiter; empty otherwise."""
    inside = [mark for mark in DELIMITERS if len(columns) == 1 and mark in columns[0]]
    return (
        f"; `delimiter: {json.dumps(inside[0])}` in the card, if that separates its cells" if inside else ""
    )
