"""The three sources a card can name, and which of them a study reads.

==========  ======================================================  ===============================
source      where it lies                                           read
==========  ======================================================  ===============================
embedded    ``prompts/`` of the catalog, written for this project   always, where the card has it
file        under the study's ``data_dir``                          where the study has a data_dir
hub         the Hugging Face Hub                                    otherwise
==========  ======================================================  ===============================
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from safety_regions.errors import StudyError, explain
from safety_regions.prompts.filters import filter_columns
from safety_regions.prompts.formats import Rows, read_rows
from safety_regions.prompts.hub import read_hub

EMBEDDED_COLUMNS = {"prompt": "text", "category": "category", "id": "id"}


class Source(NamedTuple):
    """One source of a card, the card's defaults filled in; ``where`` is how errors name it.

    ``path`` is the file to read, None for the Hub; ``given`` is the card's own part for this source.
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
        StudyError: the card has a local file only, and the study no data_dir.
    """
    folders = {"embedded": catalog_dir / "prompts", "file": data_dir, "hub": None}
    kinds = [kind for kind in folders if kind in card and (kind != "file" or data_dir is not None)]
    where = f"dataset '{name}'"
    if not kinds:
        raise StudyError(
            explain(
                where,
                "a card with a local file only, and a study without `data_dir`",
                "one source to read",
                "`data_dir` in the config, or a `hub` source in the card",
            )
        )
    kind, given = kinds[0], card[kinds[0]]
    folder = folders[kind]
    path = folder / given["path"] if folder is not None else None
    columns = given.get("columns", card.get("columns", EMBEDDED_COLUMNS))
    return Source(
        kind,
        f"{where}: {path or given['repo']}",
        path,
        given,
        columns,
        given.get("filter", card.get("filter", {})),
    )


def read_source(source: Source) -> tuple[Rows, dict]:
    """All rows of the source, unfiltered, and where they came from, for the stamp.

    Raises:
        StudyError: the source cannot be had or read, or misses a column that the card names.
    """
    read = _read_hub if source.path is None else _read_file
    rows, origin = read(source)
    missing = [column for column in needed_columns(source) if column not in rows.columns]
    if missing:
        raise StudyError(
            explain(
                source.where,
                f"no column {', '.join(missing)}",
                f"columns among: {', '.join(map(_shown, rows.columns)) or 'none'}",
                f"`columns` and `filter` of the card's `{source.kind}`; a `header` if the file has none",
            )
        )
    return rows, {"kind": source.kind, **origin}


def _shown(column: str) -> str:
    """A column's name; only its length if it has spaces: in a file without a header row it is a prompt."""
    return column if len(column.split()) == 1 else f"({len(column)} characters)"


def needed_columns(source: Source) -> list[str]:
    """Every column that the card names for this source, each once."""
    columns = source.columns
    single = ("id", "context_before", "prompt", "context_after", "response")
    named = [columns[key] for key in single if key in columns]
    return list(dict.fromkeys([*named, *category_columns(columns), *filter_columns(source.filter)]))


def category_columns(columns: dict) -> list[str]:
    """The columns whose labels make the category; none, one or several."""
    category = columns.get("category", [])
    return [category] if isinstance(category, str) else category


def _read_file(source: Source) -> tuple[Rows, dict]:
    given, path = source.given, source.path
    if not path.is_file():
        raise StudyError(explain(source.where, "no such file", **_MISSING_FILE[source.kind]))
    rows = read_rows(path, given.get("format", "jsonl"), given.get("encoding", "utf-8"), given.get("header"))
    return rows, {"path": given["path"], "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


_MISSING_FILE = {
    "embedded": {"expected": "an embedded prompt set", "hint": "the whole catalog, as the repository has it"},
    "file": {
        "expected": "the dataset's file under the study's `data_dir`",
        "hint": "the folder that holds it as `data_dir`, or no `data_dir` to read the card's `hub` source",
    },
}


def _read_hub(source: Source) -> tuple[Rows, dict]:
    given = source.given
    rows, commit = read_hub(source.where, given, needed_columns(source))
    asked = {"repo": given["repo"], "config": given.get("config"), "split": given["split"]}
    return rows, {**asked, "revision": given.get("revision", "main"), "commit": commit}
