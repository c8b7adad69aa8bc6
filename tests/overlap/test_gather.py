"""The aggregated tables must keep every row and name the cell it comes from."""

import numpy as np
import pytest

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import IOU, OVERLAP, REGION_SIZES
from safety_regions.formats.parquet import read_table, write_groups, write_table
from safety_regions.overlap.gather import gather_overlaps, region_sizes, write_square_tsv
from safety_regions.overlap.iou import compute_overlap
from tests.overlap.memberships import draw_regions, membership_of

CELLS = [("m1", "snip", "row-0.05", "raw"), ("m1", "wanda", "matrix-0.05", "minus-u")]
FACTORS = {"layers.0.q.A": (2, 9), "layers.0.q.B": (7, 2), "layers.1.down.B": (3, 2)}
LABELS = ("backbone", "method", "selection", "refinement")


def test_all_cells_end_up_in_one_table(tmp_path):
    paths = {cell: tmp_path / f"{i}.parquet" for i, cell in enumerate(CELLS)}
    overlaps = [compute_overlap(membership_of(tmp_path, draw_regions(i, 3))) for i in range(2)]
    for path, overlap in zip(paths.values(), overlaps, strict=True):
        write_table(path, overlap, OVERLAP)
    write_groups(tmp_path / "iou.parquet", gather_overlaps(paths), IOU)
    expected = [
        {**dict(zip(LABELS, cell, strict=True)), **row}
        for cell, overlap in zip(CELLS, overlaps, strict=True)
        for row in overlap.to_pylist()
    ]
    assert read_table(tmp_path / "iou.parquet", IOU).to_pylist() == expected


@pytest.mark.parametrize("granularity,shapes", [("weight", None), ("layer", None), ("weight", FACTORS)])
def test_sizes_are_those_of_the_regions(tmp_path, granularity, shapes):
    regions = draw_regions(0, 3, granularity, shapes=shapes)
    membership = membership_of(tmp_path, regions)
    write_table(tmp_path / "sizes.parquet", region_sizes(membership, CELLS[0]), REGION_SIZES)
    rows = read_table(tmp_path / "sizes.parquet", REGION_SIZES).to_pylist()
    assert {tuple(row[label] for label in LABELS) for row in rows} == {CELLS[0]}
    found = {
        (row["name"], "layers" if row["layer"] is None else f"layers.{row['layer']}.{row['projection']}"): (
            row["n_units"], row["n_selected"],
        )
        for row in rows
    }  # fmt: skip
    assert len(found) == len(rows)
    assert found == {
        (name, where): (region.units_at[where], region.selected_at[where])
        for name, region in regions.items()
        for where in region.shapes
    }


def test_a_matrix_is_read_back_as_it_was(tmp_path):
    matrix = np.array([[1.0, 1 / 3], [1 / 3, np.nan]])
    write_square_tsv(tmp_path / "m.tsv", ["a", "b.1"], matrix)
    lines = [line.split("\t") for line in (tmp_path / "m.tsv").read_text().splitlines()]
    assert lines[0] == ["name", "a", "b.1"] and [line[0] for line in lines[1:]] == ["a", "b.1"]
    values = [[float("nan") if cell == "NA" else float(cell) for cell in line[1:]] for line in lines[1:]]
    assert np.array_equal(values, matrix, equal_nan=True)


def test_a_matrix_that_is_not_square_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"\(2, 3\)"):
        write_square_tsv(tmp_path / "m.tsv", ["a", "b"], np.zeros((2, 3)))
    assert list(tmp_path.iterdir()) == []
