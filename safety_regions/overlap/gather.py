"""The final aggregation: the overlaps and region sizes of all cells of the grid, and a square matrix as text."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from safety_regions.errors import StudyError, explain
from safety_regions.formats.columns import category, column, texts
from safety_regions.formats.contracts import IOU, OVERLAP, REGION_SIZES
from safety_regions.formats.files import finished_at
from safety_regions.formats.parquet import read_table
from safety_regions.overlap.membership import addresses_of, sizes_at
from safety_regions.overlap.subspaces import Counted, read_counted
from safety_regions.units.addresses import PARTS, parse_address

# Backbone, method, selection and refinement: the labels of a cell, and the first columns of both tables.
Cell = tuple[str, str, str, str]
UNDEFINED = "NA"


def gather_overlaps(paths: Mapping[Cell, str | Path]) -> Iterator[pa.Table]:
    """Yield the overlap table of each cell as a part of the `IOU` table, with one in memory at a time.

    Raises:
        StudyError: a file is missing or damaged.
    """
    for cell, path in paths.items():
        yield _label(read_table(path, OVERLAP), cell, IOU.schema)


def region_sizes(membership: Counted, cell: Cell) -> pa.Table:
    """Return the number of units of each region of a cell at each address: a `REGION_SIZES` table."""
    names, addresses = membership.metadata["names"], addresses_of(membership)
    places = [parse_address(where) for where in addresses] * len(names)
    layer = np.array([-1 if p.layer is None else p.layer for p in places], np.int16)
    codes = [-1 if p.layer is None else PARTS.index(p.projection) for p in places]
    n_units = [membership.metadata["n_units"][where] for where in addresses]
    columns = {
        "name": texts([name for name in names for _ in addresses]),
        "layer": column(layer, missing=layer < 0),
        "projection": category(codes, PARTS),
        "n_units": column(np.tile(np.array(n_units, np.int64), len(names))),
        "n_selected": column(sizes_at(membership).ravel()),
    }
    return _label(
        pa.Table.from_arrays(list(columns.values()), names=list(columns)), cell, REGION_SIZES.schema
    )


def gather_sizes(paths: Mapping[Cell, str | Path]) -> Iterator[pa.Table]:
    """Yield the region sizes of each cell, from its counts, as a part of the `REGION_SIZES` table.

    Raises:
        StudyError: a file is missing or damaged.
    """
    for cell, path in paths.items():
        yield region_sizes(read_counted(path), cell)


def write_square_tsv(path: str | Path, names: Sequence[str], matrix: np.ndarray) -> None:
    """Write a square matrix with its names as header and first column, tab-separated; NaN is written ``NA``.

    Raises:
        StudyError: the matrix is not (names, names).
    """
    if matrix.shape != (len(names), len(names)):
        raise StudyError(explain(path, f"a matrix {matrix.shape}", f"({len(names)}, {len(names)})"))
    lines = [["name", *names]]
    for name, row in zip(names, matrix.tolist(), strict=True):
        lines.append([name, *(UNDEFINED if np.isnan(value) else repr(value) for value in row)])
    with finished_at(path) as temporary:
        temporary.write_text("".join("\t".join(line) + "\n" for line in lines))


def _label(table: pa.Table, cell: Cell, schema: pa.Schema) -> pa.Table:
    """Add the four labels of the cell as the first columns of ``table``."""
    labels = [category(np.zeros(table.num_rows, np.int32), [word]) for word in cell]
    return pa.Table.from_arrays([*labels, *table.columns], schema=schema)
