"""Read local files, with one loader per format; each returns the unchanged rows of the file with all columns.

===========  ================================================  ============================================
format       the file                                          ``header``
===========  ================================================  ============================================
csv          quoted cells may hold commas and newlines; a      the columns, if the file has no header row
             first line ``sep=;`` names the delimiter
text         one prompt per line, blank lines skipped          the one column, ``text`` by default
json         a list of objects, or of strings                  -
jsonl        one object or string per line, blanks skipped     -
nested-json  lists of strings below any number of key levels   a name per level, then one for the strings
parquet      only the columns that the card names              -
===========  ================================================  ============================================

The types of CSV cells are never guessed: ``NA`` is the text NA, and numbers stay text.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from safety_regions.errors import StudyError, explain, unknown
from safety_regions.prompts.disguises import refuse_disguise
from safety_regions.study.sources import DELIMITERS, TEXT, sep_line

# A cell may be as long as it likes; the limit of Python's reader is 131072 characters.
csv.field_size_limit(sys.maxsize)


class Rows(NamedTuple):
    """The rows of a source, in its order; the number of a row is its 0-based index in ``rows``."""

    columns: list[str]
    rows: list[dict[str, Any]]


class Layout(NamedTuple):
    """How to read a file.

    Attributes:
        encoding: a Python codec; not used for parquet.
        header: column names for a file without a header row.
        delimiter: the character between the cells of a CSV file; None for a comma, or what a line ``sep=;`` says.
        needed: the columns that the card names. Parquet reads no others; a CSV file with another delimiter is
            recognised by them.
    """

    encoding: str = "utf-8"
    header: Sequence[str] | None = None
    delimiter: str | None = None
    needed: Sequence[str] | None = None


DEFAULT_LAYOUT = Layout()
Loader = Callable[[Path, Layout], Rows]


def read_rows(path: Path, format: str, layout: Layout = DEFAULT_LAYOUT) -> Rows:
    """Read the rows of one local file; a byte-order mark is dropped, and any line ending is accepted.

    Args:
        path: the file.
        format: a key of `FORMATS`.
        layout: encoding, header, delimiter and needed columns.

    Raises:
        StudyError: the format is unknown, or the file is missing, is of another kind (compressed, a Git LFS pointer),
            cannot be decoded, is damaged, or has rows of different lengths.
    """
    if format not in FORMATS:
        raise StudyError(unknown(path, "format", format, FORMATS))
    if not path.is_file():
        raise StudyError(explain(path, "no such file"))
    refuse_disguise(path, format)
    return FORMATS[format](path, layout)


def read_text(path: Path, encoding: str) -> str:
    """The text of a file, with unchanged line endings and without its byte-order mark.

    Raises:
        StudyError: the codec is unknown, or the file cannot be decoded with it.
    """
    raw = path.read_bytes()
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise StudyError(
            explain(path, f"encoding '{encoding}'", "a Python codec such as utf-8, utf-16 or latin-1")
        ) from None
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise StudyError(
            explain(
                path,
                f"bytes that are not {encoding} at line {line} (byte {error.start})",
                hint="the actual `encoding` of the file in the card, e.g. latin-1, or an undamaged copy",
            )
        ) from None


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Line numbers (1-based) and lines that are not blank."""
    # str.splitlines would also split at characters such as U+2028, which JSON strings and prompts may contain.
    for number, line in enumerate(io.StringIO(read_text(path, encoding), newline=None), start=1):
        if line.strip():
            yield number, line.removesuffix("\n")


def _csv(path: Path, layout: Layout) -> Rows:
    text, header = read_text(path, layout.encoding), layout.header
    first, _, rest = text.partition("\n")
    said = sep_line(first)
    text, skipped = (rest, 1) if said else (text, 0)
    delimiter = layout.delimiter or said or ","
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    records: list[tuple[int, list[str]]] = []
    try:
        _refuse_delimiter(path, text, delimiter, layout)
        for fields in reader:
            if fields:
                records.append((reader.line_num + skipped, fields))
    except csv.Error as error:  # its messages do not quote cells
        raise StudyError(
            explain(
                f"{path}, line {reader.line_num + skipped}",
                f"broken CSV after {len(records)} rows ({error})",
                "closed quotes around cells, and doubled quotes inside them",
            )
        ) from None
    if not header and not records:
        raise StudyError(explain(path, "an empty file", "a header row"))
    columns = list(header) if header else records.pop(0)[1]
    _refuse_repeated(path, columns)
    for line, fields in records:
        if len(fields) != len(columns):
            raise StudyError(
                explain(f"{path}, line {line}", f"a row of {len(fields)} cells", f"{len(columns)} cells")
            )
    return Rows(columns, [dict(zip(columns, fields, strict=True)) for _, fields in records])


def _refuse_delimiter(path: Path, text: str, delimiter: str, layout: Layout) -> None:
    """Refuse a file whose first row has the expected columns only if another character separates its cells."""
    fitting = [other for other in (delimiter, *DELIMITERS) if _fits(text, other, layout)]
    if fitting and fitting[0] != delimiter:
        likely = json.dumps(fitting[0])
        raise StudyError(
            explain(
                path,
                f"cells separated by {likely}",
                f"cells separated by {json.dumps(delimiter)}",
                f"`delimiter: {likely}` under `file` in the card",
            )
        )


def _fits(text: str, delimiter: str, layout: Layout) -> bool:
    """Whether the first row has the needed columns, or as many cells as the card's header has names."""
    cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    if layout.header:
        return len(cells) == len(layout.header)
    return set(layout.needed or ()) <= set(cells)


def _refuse_repeated(path: Path, columns: Sequence[str]) -> None:
    repeated = [str(i) for i, column in enumerate(columns, start=1) if column in columns[: i - 1]]
    if repeated:
        raise StudyError(
            explain(
                path,
                f"repeated column names (columns {', '.join(repeated)})",
                "a header row with distinct names",
                "a `header` in the card, if the file has no header row",
            )
        )


def _text(path: Path, layout: Layout) -> Rows:
    (column,) = layout.header or [TEXT]
    return Rows([column], [{column: line} for _, line in _lines(path, layout.encoding)])


def _json(path: Path, layout: Layout) -> Rows:
    data = _parse(read_text(path, layout.encoding), path)
    if not isinstance(data, list):
        raise StudyError(
            explain(path, f"a JSON {_kind(data)}", "a list of objects or of strings", "format: nested-json")
        )
    return _objects((f"{path}, row {number}", row) for number, row in enumerate(data))


def _jsonl(path: Path, layout: Layout) -> Rows:
    lines = ((f"{path}, line {number}", line) for number, line in _lines(path, layout.encoding))
    return _objects((where, _parse(line, where)) for where, line in lines)


def _objects(rows: Iterator[tuple[str, Any]]) -> Rows:
    """JSON objects as rows; the columns are all their keys, in the order of first occurrence.

    A string is the row of one column, `TEXT`; all rows must be of one kind.
    """
    kept, kind = [], None
    for where, row in rows:
        kind = kind or (str if isinstance(row, str) else dict)
        if not isinstance(row, kind):
            raise StudyError(
                explain(where, f"a JSON {_kind(row)}", f"a JSON {_KINDS[kind]}", "format: nested-json")
            )
        kept.append({TEXT: row} if kind is str else row)
    return Rows(list(dict.fromkeys(key for row in kept for key in row)), kept)


def _nested_json(path: Path, layout: Layout) -> Rows:
    columns = list(layout.header or [TEXT])
    data = _parse(read_text(path, layout.encoding), path)
    return Rows(
        columns, [dict(zip(columns, cells, strict=True)) for cells in _leaves(data, 1, len(columns), path)]
    )


def _leaves(node: Any, level: int, depth: int, path: Path) -> Iterator[tuple[Any, ...]]:
    """Yield each string of the lists at ``depth``, together with the keys above it, in file order."""
    wanted = list if level == depth else dict
    if not isinstance(node, wanted):
        raise StudyError(
            explain(
                f"{path}, level {level}",
                f"a JSON {_kind(node)}",
                f"a JSON {_KINDS[wanted]}",
                f"a `header` with one name for each level of the file; the card's header has {depth}",
            )
        )
    if wanted is list:
        yield from ((leaf,) for leaf in node)
        return
    for key, child in node.items():
        for cells in _leaves(child, level + 1, depth, path):
            yield (key, *cells)


_KINDS = {dict: "object", list: "list", str: "string", int: "number", float: "number", bool: "boolean"}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "null")


class _KeyTwice(ValueError):
    """A JSON object contains a key twice; Python's parser would silently keep only the last value."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise _KeyTwice
    return dict(pairs)


def _parse(text: str, where: object) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        found = f"broken JSON (line {error.lineno}, column {error.colno})"
    except _KeyTwice:
        found = "a JSON object that contains one key twice"
    except (ValueError, RecursionError) as error:
        found = f"unreadable JSON ({type(error).__name__})"
    raise StudyError(explain(where, found, hint="another `format` in the card, or an undamaged copy"))


def _parquet(path: Path, layout: Layout) -> Rows:
    """Only the needed columns: others may hold values that Python cannot, such as dates after the year 9999."""
    try:
        file = pq.ParquetFile(path)
        columns = file.schema_arrow.names
        _refuse_repeated(path, columns)
        wanted = [name for name in columns if layout.needed is None or name in layout.needed]
        # A dot in a name also means a part of a nested column, so `read` may give more than it is asked for.
        table = file.read(wanted).select(wanted)
    except (OSError, pa.ArrowException) as error:
        raise StudyError(
            explain(path, f"an unreadable parquet file ({type(error).__name__})", hint="an undamaged copy")
        ) from None
    values = {name: _values(path, name, table[name]) for name in wanted}
    return Rows(columns, [{name: values[name][row] for name in wanted} for row in range(table.num_rows)])


def _values(path: Path, name: str, column: pa.ChunkedArray) -> list[Any]:
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, LookupError, pa.ArrowException) as error:
        found = f"values of type {column.type} that Python cannot hold ({type(error).__name__})"
        raise StudyError(
            explain(f"{path}, column {name}", found, hint="another column in the card, or this one as text")
        ) from None


FORMATS: dict[str, Loader] = {
    "csv": _csv,
    "text": _text,
    "json": _json,
    "jsonl": _jsonl,
    "nested-json": _nested_json,
    "parquet": _parquet,
}
