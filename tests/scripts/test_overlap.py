"""The scripts of overlaps write what the package computes from the same regions, under the names they are given."""

import csv
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest

from safety_regions.formats.contracts import (
    CORES,
    CROSSED,
    IOU,
    MEMBERSHIP,
    OVERLAP,
    POOLS,
    REGION_SIZES,
    SAMPLE_SIZES,
    SHARED_PROMPTS,
    SPECTRUM,
    SUBSPACES,
)
from safety_regions.formats.parquet import read_metadata, read_table, write_table
from safety_regions.overlap.cores import compare_cores
from safety_regions.overlap.frame import Frame, frame_overlap
from safety_regions.overlap.membership import count_membership, read_membership
from safety_regions.overlap.pairs import compare_pairs
from safety_regions.overlap.prompts import COLUMNS
from safety_regions.overlap.spectrum import measure_spectrum
from tests.overlap.memberships import draw_regions, draw_subspaces, write_regions
from tests.regions.small_regions import units, write_scores
from tests.scripts.loading import load_script

CELL = {"backbone": "tiny", "method": "snip", "selection": "matrix-0.5", "refinement": "raw"}


@pytest.fixture
def drawn(tmp_path):
    return draw_regions(0, 3)


@pytest.fixture
def paths(drawn, tmp_path):
    found = write_regions(tmp_path, {name: region for name, region in sorted(drawn.items())})
    for name, region in drawn.items():
        region.metadata.update(samples_used=7, prompts_used=[f"{name}/{i}" for i in range(7)])
        write_regions(tmp_path, {name: region})
    return found


def literal_iou(a, b):
    a, b = units(a), units(b)
    return len(a & b) / len(a | b)


def read_square(path):
    """Read a square matrix from a text file as (row, column) -> number; undefined entries are left out."""
    with open(path, encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    return {
        (r[0], c): float(x) for r in rows[1:] for c, x in zip(rows[0][1:], r[1:], strict=True) if x != "NA"
    }


def test_count_membership_writes_the_counts(paths, tmp_path):
    load_script("count_membership")(paths, tmp_path / "membership.parquet")
    found, expected = read_membership(tmp_path / "membership.parquet"), count_membership(paths)
    assert found.table.equals(expected.table) and found.metadata["names"] == list(paths)


@pytest.fixture
def shared(drawn, tmp_path):
    """Write a table in which the first two sets share their third prompts, and one more of each that is not used."""
    pairs = list(combinations(sorted(drawn), 2))
    rows = [{"a": a, "b": b, "n_a": 9, "n_b": 9, "n_exact": 0, "n_near": 2 * (i == 0),
             "near_a": [f"{a}/2", f"{a}/8"] * (i == 0), "near_b": [f"{b}/2", f"{b}/8"] * (i == 0)}
            for i, (a, b) in enumerate(pairs)]  # fmt: skip
    write_table(
        tmp_path / "shared.parquet", pa.Table.from_pylist(rows, SHARED_PROMPTS.schema), SHARED_PROMPTS
    )
    return tmp_path / "shared.parquet"


def test_compute_overlap_writes_the_frame_and_the_pairs(paths, drawn, shared, tmp_path):
    load_script("count_membership")(paths, tmp_path / "membership.parquet")
    table, matrix = tmp_path / "overlap.parquet", tmp_path / "iou.tsv"
    load_script("compute_overlap")(
        tmp_path / "membership.parquet", paths, shared, {}, {}, [], {}, CELL, table, matrix
    )
    found, plain = read_table(table, OVERLAP), frame_overlap(count_membership(paths), paths, Frame())
    assert found.drop_columns(list(COLUMNS)).equals(plain.drop_columns(list(COLUMNS)))
    for row in found.to_pylist():
        assert (row["n_smallest"], row["n_largest"]) == (7, 7)
        expected = 1 / 7 if row["combination"] == "a2 & b1" else None if row["k"] > 2 else 0
        assert row["shared"] == expected, "the region of each set was found with its prompts 0 to 6"
    square = read_square(matrix)
    for (a, b), value in square.items():
        assert value == pytest.approx(literal_iou(drawn[a], drawn[b]))
    assert len(square) == 9


@pytest.mark.parametrize("contiguous", [True, False])
def test_the_floor_of_unbroken_ranges_is_another(shared, tmp_path, contiguous):
    paths = write_regions(tmp_path, draw_regions(5, 2, granularity="layer", scope="global"))
    load_script("count_membership")(paths, tmp_path / "m.parquet")
    load_script("compute_overlap")(
        tmp_path / "m.parquet",
        paths,
        shared,
        {"floors": 2, "contiguous": contiguous},
        {},
        [],
        {},
        CELL,
        tmp_path / "o",
        tmp_path / "t",
    )
    expected = {
        c: frame_overlap(count_membership(paths), paths, Frame(floors=2, contiguous=c)) for c in (True, False)
    }
    assert read_table(tmp_path / "o", OVERLAP).equals(expected[contiguous])
    assert not expected[True].equals(expected[False])


@pytest.fixture
def spaces(tmp_path):
    """Write random regions of ranks: two sets and a utility set, their halves, and shuffles of all."""
    halves = [name + half for name in "abu" for half in ("", ".1", ".2")]
    names = [*halves, *(f"{name}~{seed}" for name in halves for seed in (1, 2) if not name.endswith(".2"))]
    drawn = draw_subspaces(0, [2] * len(names), names)
    for name, region in drawn.items():
        region.metadata.update(samples_used=7, prompts_used=[f"{name[0]}/{i}" for i in range(7)])
    return drawn, write_regions(tmp_path, drawn)


def test_subspaces_have_the_same_frame_as_units(spaces, tmp_path):
    """From shared dimensions to the tables and figures of a cell, with every reference by its definition."""
    (drawn, paths), table = spaces, tmp_path / "overlap.parquet"
    shared = pa.Table.from_pylist([], SHARED_PROMPTS.schema)
    write_table(tmp_path / "shared.parquet", shared, SHARED_PROMPTS)
    pair = {name: paths[name] for name in "ab"}
    load_script("measure_subspaces")(pair, tmp_path / "s.parquet", tmp_path / "c.parquet")
    assert read_table(tmp_path / "c.parquet", SPECTRUM).equals(measure_spectrum(pair))
    assert read_table(tmp_path / "s.parquet", SUBSPACES).num_rows == len(drawn["a"].shapes)
    frame = {"utility": ["u"], "floors": 2, "halves": True}
    load_script("compute_overlap")(
        tmp_path / "s.parquet", paths, tmp_path / "shared.parquet", frame, {}, [], {}, CELL, table, tmp_path / "t"
    )  # fmt: skip

    def soft(x, y):
        first, second = (drawn[name].bases for name in (x, y))
        both = sum(np.square(first[w].T @ second[w]).sum() for w in first)
        return both / (drawn[x].n_selected + drawn[y].n_selected - both)

    rows = {r["combination"]: r for r in read_table(table, OVERLAP).to_pylist() if r["level"] == "model"}
    assert {name: row["between"] for name, row in rows.items()} == {
        "a & b": "identification", "a & u": "mixed", "b & u": "mixed",
    }  # fmt: skip
    for combination, row in rows.items():
        x, y = combination.split(" & ")
        expected = {
            "iou": soft(x, y),
            "floor": np.mean([soft(f"{x}~{i}", f"{y}~{i}") for i in (1, 2)]),
            "half_floor": np.mean([soft(f"{x}.1~{i}", f"{y}.1~{i}") for i in (1, 2)]),
            "half_iou": np.mean([soft(x + half, y + half) for half in (".1", ".2")]),
            "ceiling": (soft(f"{x}.1", f"{x}.2") + soft(f"{y}.1", f"{y}.2")) / 2,
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-6)
        assert row["similarity"] == pytest.approx(row["dimensions"] / drawn[x].n_selected)
        assert (row["n_smallest"], row["intersection"], row["correlation"]) == (7, None, None)
    assert read_square(tmp_path / "t")["a", "b"] == pytest.approx(soft("a", "b"), abs=1e-6)
    load_script("gather_overlaps")(
        [list(CELL.values())], [table], [tmp_path / "s.parquet"], tmp_path / "iou", tmp_path / "sizes"
    )
    sizes = read_table(tmp_path / "sizes", REGION_SIZES).to_pylist()
    assert {(row["name"], row["n_selected"]) for row in sizes} == {("a", 2), ("b", 2)}
    assert read_table(tmp_path / "iou", IOU).num_rows == read_table(table, OVERLAP).num_rows


def test_pools_are_compared_with_their_shuffles(paths, drawn, tmp_path):
    a, b, c = paths
    steps = [{"order": 1, "k": k, "against": "next", "a": x, "b": y} for k, x, y in ((1, a, b), (2, b, c))]
    for shuffled, nested in (([(a, c), (c, b)], False), ([], True)):
        load_script("compare_pools")(paths, steps, shuffled, nested, CELL, tmp_path / "pools.parquet")
        rows = read_table(tmp_path / "pools.parquet", POOLS).to_pylist()
        assert [row["iou"] for row in rows] == pytest.approx(
            [literal_iou(drawn[a], drawn[b]), literal_iou(drawn[b], drawn[c])]
        )
        expected = [literal_iou(drawn[x], drawn[y]) for x, y in shuffled] or [None, None]
        assert [row["shuffled"] for row in rows] == (pytest.approx(expected) if shuffled else expected)
        assert all(row["nested"] is nested and row["n_a"] == 7 for row in rows)
        assert [{key: row[key] for key in steps[0]} for row in rows] == steps
    assert CELL.items() <= read_metadata(tmp_path / "pools.parquet").items()


def test_cores_are_written_with_their_groups(paths, tmp_path):
    groups = [{"kind": "sets", "draw": 0, "names": list(paths)}]
    load_script("compare_cores")(paths, groups, CELL, tmp_path / "cores.parquet")
    assert read_table(tmp_path / "cores.parquet", CORES).equals(compare_cores(paths, groups))
    assert (CELL | {"groups": groups}).items() <= read_metadata(tmp_path / "cores.parquet").items()


@pytest.mark.parametrize(
    "table,contract,labels",
    [("SAMPLE_SIZES", SAMPLE_SIZES, {"n": 10, "pair": "sets"}), ("CROSSED", CROSSED, {"same": "prompts"})],
)
def test_pairs_are_compared_as_they_are_labelled(paths, drawn, tmp_path, table, contract, labels):
    a, b, _ = paths
    pairs = [{**labels, "a": a, "b": b}]
    load_script("compare_pairs")(paths, pairs, table, CELL, tmp_path / "pairs.parquet")
    (row,) = read_table(tmp_path / "pairs.parquet", contract).to_pylist()
    assert row["iou"] == pytest.approx(literal_iou(drawn[a], drawn[b])) and row["n_a"] == 7
    assert {**row, **compare_pairs(paths, pairs).to_pylist()[0]} == row
    assert CELL.items() <= read_metadata(tmp_path / "pairs.parquet").items()


def test_gather_overlaps_labels_each_cell(paths, tmp_path):
    counted = count_membership(paths)
    write_table(tmp_path / "m", counted.table, MEMBERSHIP, counted.metadata)
    write_table(tmp_path / "o", frame_overlap(counted, paths, Frame()), OVERLAP)
    cells = [[*list(CELL.values())[:3], refinement] for refinement in ("raw", "minus-u")]
    load_script("gather_overlaps")(
        cells,
        [tmp_path / "o"] * 2,
        [tmp_path / "m"] * 2,
        tmp_path / "iou.parquet",
        tmp_path / "sizes.parquet",
    )
    iou, sizes = (
        read_table(tmp_path / "iou.parquet", IOU),
        read_table(tmp_path / "sizes.parquet", REGION_SIZES),
    )
    for table in (iou, sizes):
        half = table.num_rows // 2
        assert table["refinement"].to_pylist() == ["raw"] * half + ["minus-u"] * half
        assert set(table["backbone"].to_pylist()) == {"tiny"}
    assert iou.num_rows == 2 * read_table(tmp_path / "o", OVERLAP).num_rows


def test_compare_methods_agrees_with_counting_the_best(tmp_path):
    shape, rng = (4, 10), np.random.default_rng(1)
    drawn = {label: rng.random(shape) for label in ("snip", "wanda")}
    more = {"weight_shapes": {"layers.0.q": list(shape)}}
    paths = {
        label: write_scores(tmp_path / label, "weight", {"layers.0.q": values}, {"matrix": 1.0}, **more)
        for label, values in drawn.items()
    }
    load_script("compare_methods")(
        paths, [], "llama", 0.25, tmp_path / "overlap.parquet", tmp_path / "iou.tsv"
    )
    best = {label: set(np.argsort(-values.ravel())[:10].tolist()) for label, values in drawn.items()}
    expected = len(best["snip"] & best["wanda"]) / len(best["snip"] | best["wanda"])
    rows = read_table(tmp_path / "overlap.parquet", OVERLAP).to_pylist()
    assert [r["iou"] for r in rows if r["level"] == "model"] == [pytest.approx(expected)]
    assert read_square(tmp_path / "iou.tsv")["snip", "wanda"] == pytest.approx(expected)
