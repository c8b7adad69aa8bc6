"""Convert numpy arrays to arrow columns and back without `pa.array` and `to_numpy`, which import pandas (0.25 s)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from safety_regions.errors import StudyError, explain


class Categories(NamedTuple):
    """A column with few distinct words: row i is ``words[codes[i]]``, or null if the code is -1."""

    codes: np.ndarray
    words: list[str]


def column(values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    """A numeric arrow column of ``values`` that is null where the boolean array ``missing`` is True."""
    values = np.ascontiguousarray(values)
    valid = None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little"))
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values)])


def texts(words: Sequence[str]) -> pa.StringArray:
    """A string column."""
    encoded = [word.encode() for word in words]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(words), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def category(codes: np.ndarray, words: Sequence[str]) -> pa.DictionaryArray:
    """A dictionary column from codes and words; see `Categories`."""
    codes = np.asarray(codes, dtype=np.int32)
    return pa.DictionaryArray.from_arrays(column(codes, missing=codes < 0), texts(words))


def numbers(table: pa.Table, name: str, null: int | float | None = None) -> np.ndarray:
    """A numeric column as a numpy array, with nulls replaced by ``null``.

    Raises:
        StudyError: the column contains nulls and no replacement is given.
    """
    count = table[name].null_count
    if count and null is None:
        raise StudyError(explain(f"column '{name}'", f"{count} nulls", "a value in every row"))
    empty = np.zeros(0, table.schema.field(name).type.to_pandas_dtype())
    return np.concatenate([empty, *(_values(chunk, null) for chunk in table[name].chunks if len(chunk))])


def lists(where: object, column: pa.ChunkedArray) -> np.ndarray:
    """A column of numeric lists of equal length as an array (rows, length).

    Raises:
        StudyError: a list or a value is missing, or the lists differ in length.
    """
    array = column.combine_chunks()
    values, ends = array.flatten(), np.frombuffer(array.buffers()[1], np.int32)
    lengths = sorted(set(np.diff(ends[array.offset : array.offset + len(array) + 1]).tolist()))
    if array.null_count or values.null_count or len(lengths) > 1:
        found = f"{array.null_count + values.null_count} nulls, lengths {lengths}"
        raise StudyError(explain(where, found, "lists of equal length with a value for every prompt"))
    return _values(values, None).reshape(len(array), *lengths)


def categories(table: pa.Table, name: str) -> Categories:
    """A dictionary column as codes and words."""
    chunks = [chunk for chunk in table[name].unify_dictionaries().chunks if len(chunk)]
    words = chunks[0].dictionary.to_pylist() if chunks else []
    return Categories(
        np.concatenate([np.zeros(0, np.int32), *(_values(c.indices, -1) for c in chunks)]), words
    )


def _values(array: pa.Array, null: int | float | None) -> np.ndarray:
    valid, data = array.buffers()
    rows = slice(array.offset, array.offset + len(array))
    values = np.frombuffer(data, array.type.to_pandas_dtype())[rows]
    if array.null_count:
        missing = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")[rows] == 0
        values = np.where(missing, values.dtype.type(null), values)
    return values
