"""Read and write the tables of `safety_regions.formats.contracts`, and check each against its contract.

A table's metadata says which method made it, from which inputs, with which options. It is stored as JSON in the parquet
file's own metadata, under the key ``safety_regions``; `read_metadata` reads it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from safety_regions.errors import StudyError, explain
from safety_regions.formats.contracts import Contract
from safety_regions.formats.files import REMEDY, finished_at

METADATA = b"safety_regions"


def conform(data: pa.Table | Any, contract: Contract) -> pa.Table:
    """Convert ``data`` (a pyarrow table or a pandas frame) to the contract's columns, order and dtypes.

    Missing optional columns are filled with nulls.

    Raises:
        StudyError: a column is missing, unknown, or cannot be converted to its dtype.
    """
    if not isinstance(data, pa.Table):
        data = pa.Table.from_pandas(data, preserve_index=False)
    for column in contract.columns:
        if column.optional and column.name not in data.column_names:
            data = data.append_column(column.name, pa.nulls(data.num_rows, column.type))
    wanted = [c.name for c in contract.columns]
    if sorted(data.column_names) != sorted(wanted):
        raise StudyError(
            explain(f"table '{contract.name}'", f"columns {data.column_names}", f"columns {wanted}")
        )
    try:
        return data.select(wanted).replace_schema_metadata(None).cast(contract.schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise StudyError(
            explain(f"table '{contract.name}'", str(error), f"dtypes {contract.schema}")
        ) from None


def write_table(
    path: str | Path, data: pa.Table | Any, contract: Contract, metadata: dict | None = None
) -> None:
    """Write a table (a pyarrow table or a pandas frame) and its ``metadata`` atomically."""
    table = conform(data, contract)
    write_groups(path, [table], contract, metadata)


def write_groups(
    path: str | Path, groups: Iterable[pa.Table | Any], contract: Contract, metadata: dict | None = None
) -> None:
    """Write one row group per element of ``groups``, so that a reader can load one address at a time."""
    full = {**(metadata or {}), "schema": contract.name, "version": contract.version}
    schema = contract.schema.with_metadata({METADATA: json.dumps(full, sort_keys=True).encode()})
    words = [
        field.name for field in schema if pa.types.is_dictionary(field.type)
    ]  # a dictionary of numbers never pays
    how = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": words}
    with finished_at(path) as temporary, pq.ParquetWriter(temporary, schema, **how) as writer:
        for group in groups:
            table = conform(group, contract)
            writer.write_table(table, row_group_size=max(1, table.num_rows))


def open_table(path: str | Path, contract: Contract) -> pq.ParquetFile:
    """Open the parquet file at ``path`` and check its schema name and version against the contract.

    Raises:
        StudyError: the file is missing, damaged, or a table of another kind or version.
    """
    file, metadata = _open(path, f"a '{contract.name}' table")
    found = (metadata.get("schema"), metadata.get("version"))
    if found != (contract.name, contract.version):
        raise StudyError(
            explain(
                path,
                f"schema {found[0]} version {found[1]}",
                f"{contract.name} version {contract.version}",
                REMEDY,
            )
        )
    return file


def _open(path: str | Path, expected: str) -> tuple[pq.ParquetFile, dict]:
    """A parquet file and its metadata."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        return file, json.loads((file.schema_arrow.metadata or {}).get(METADATA, b"{}"))
    except (OSError, ValueError) as error:
        found = f"an unreadable parquet file ({type(error).__name__})"
        raise StudyError(explain(path, found, expected, REMEDY)) from None


def read_table(path: str | Path, contract: Contract, columns: list[str] | None = None) -> pa.Table:
    """Read the table at ``path``, or some of its columns; see `open_table` for errors."""
    file = open_table(path, contract)
    with _undamaged(path, contract):
        return file.read(columns=columns)


def read_tables(
    paths: Mapping[str, str | Path], contract: Contract, columns: list[str] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """Yield (name, table) for every path, reading one table at a time; see `open_table` for errors."""
    for name, path in paths.items():
        yield name, read_table(path, contract, columns)


def iter_rows(path: str | Path, contract: Contract, wanted: Mapping[str, object]) -> Iterator[pa.Table]:
    """Yield from each row group the rows in which columns have the wanted values, one column in memory at a time.

    Args:
        wanted: column -> value.
    """
    import pyarrow.compute as pc  # not at the top: every job imports this module

    file = open_table(path, contract)
    for group in range(file.num_row_groups):
        with _undamaged(path, contract):
            found = [
                _is(file.read_row_group(group, columns=[name])[name], value) for name, value in wanted.items()
            ]
            rows = pc.indices_nonzero(reduce(pc.and_, found))
            names = contract.schema.names
            columns = [file.read_row_group(group, columns=[name])[name].take(rows) for name in names]
        yield pa.table(columns, names)


def _is(column: pa.ChunkedArray, value: object) -> pa.ChunkedArray:
    """Whether each entry of a column is the value; categories are compared as text."""
    import pyarrow.compute as pc

    return pc.equal(column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column, value)


@contextmanager
def _undamaged(path: str | Path, contract: Contract) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        found = f"damaged data ({type(error).__name__})"
        raise StudyError(explain(path, found, f"a '{contract.name}' table", REMEDY)) from None


def read_metadata(path: str | Path) -> dict:
    """Read the metadata of a table: schema, version, and what its writer added.

    Raises:
        StudyError: the file is missing or is not a parquet file.
    """
    return _open(path, "a parquet table with metadata")[1]
