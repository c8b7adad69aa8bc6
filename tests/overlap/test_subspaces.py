"""Overlaps of subspaces: laws, chance by simulation, and agreement with counts where both are defined."""

import numpy as np
import pytest

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import OVERLAP, SUBSPACES
from safety_regions.formats.parquet import conform, write_table
from safety_regions.formats.region import Region, read_region, write_region
from safety_regions.formats.region_file import RegionFile
from safety_regions.formats.subspaces import Subspaces, read_any_region, read_subspaces
from safety_regions.overlap.iou import compute_overlap, overlap_of_pairs
from safety_regions.overlap.membership import count_membership, count_regions, region_totals
from safety_regions.overlap.spectrum import chance_spectrum, measure_spectrum, spectrum
from safety_regions.overlap.subspaces import (
    count_files,
    count_in_memory,
    expected_overlap,
    read_counted,
    traces,
)
from safety_regions.report.figures.maps import iou_by_address
from tests.oracles.ranks import soft_iou
from tests.overlap.memberships import OUT, RANKS, draw_subspaces, random_basis, subspaces_of, write_regions
from tests.regions.small_regions import METADATA


def rows_of(overlap) -> dict:
    keys = ("combination", "level", "layer", "projection")
    return {tuple(row[key] for key in keys): row for row in overlap.to_pylist()}


def test_a_file_gives_the_region_back_and_is_no_region_of_bits(tmp_path):
    region = draw_subspaces(0, [3])["a"]
    (path,) = write_regions(tmp_path, {"a": region}).values()
    again = read_subspaces(path)
    assert again.shapes == region.shapes and again.available == region.available == RANKS
    assert again.metadata == region.metadata and again.n_selected == 3 * len(OUT) and again.n_units == 24
    assert all(np.array_equal(again.bases[w], b.astype(np.float32)) for w, b in region.bases.items())
    assert isinstance(read_any_region(path), Subspaces)
    with pytest.raises(StudyError, match="a region of ranks, which are subspaces"):
        read_region(path)
    with pytest.raises(StudyError, match="a region of ranks, which are subspaces"):
        count_membership({"a": path})
    write_region(
        tmp_path / "w",
        Region.pack({"layers.0.q": np.ones((2, 2), bool)}, {**METADATA, "granularity": "weight"}),
    )
    assert isinstance(read_any_region(tmp_path / "w"), Region)
    with pytest.raises(StudyError, match="granularity weight"):
        read_subspaces(tmp_path / "w")


def test_damaged_and_bent_bases_are_errors(tmp_path):
    (path,) = write_regions(tmp_path, draw_subspaces(0, [3])).values()
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(StudyError, match="damaged basis"):
        read_subspaces(path)
    bent = draw_subspaces(0, [3])["a"].bases
    bent["layers.0.q"] = bent["layers.0.q"] * 1.01
    with pytest.raises(StudyError, match=r"layers\.0\.q.*orthonormal"):
        subspaces_of(bent)
    with pytest.raises(StudyError, match="at most 7"):
        subspaces_of({w: np.eye(n)[:, :8] if n == 9 else np.eye(n)[:, :1] for w, n in OUT.items()})


def test_a_rotation_inside_the_span_changes_nothing():
    """Signs, order and rotations of a basis are arbitrary: the soft IoU with itself is 1."""
    region = draw_subspaces(1, [3])["a"]
    turn = random_basis(np.random.default_rng(2), 3, 3)
    turned = subspaces_of({where: basis @ turn for where, basis in region.bases.items()}, "b")
    found = rows_of(compute_overlap(count_in_memory({"a": region, "b": turned})))
    for row in found.values():
        assert row["iou"] == pytest.approx(1) and row["similarity"] == pytest.approx(1)


def test_each_number_is_that_of_its_definition(tmp_path):
    regions = draw_subspaces(3, [2, 4])
    found = rows_of(compute_overlap(count_files(write_regions(tmp_path, regions))))
    a, b = regions["a"].bases, regions["b"].bases
    # Matrices of one address: layer 10 and the projection down.
    for level, where in (("layer", "layers.10.up"), ("projection", "layers.0.down")):
        layer, projection = int(where.split(".")[1]), where.split(".")[2]
        key = (
            "a & b",
            level,
            layer if level == "layer" else None,
            projection if level == "projection" else None,
        )
        assert found[key]["iou"] == pytest.approx(soft_iou(a[where], b[where]), abs=1e-6)
    shared = sum(np.square(a[where].T @ b[where]).sum() for where in OUT)
    model = found["a & b", "model", None, None]
    assert model["dimensions"] == pytest.approx(shared, abs=1e-5)
    assert model["iou"] == pytest.approx(shared / (6 * len(OUT) - shared), abs=1e-6)
    assert model["similarity"] == pytest.approx(shared / (2 * len(OUT)), abs=1e-6)
    assert (model["smallest"], model["largest"]) == (2 * len(OUT), 4 * len(OUT))
    assert model["intersection"] is None and model["union"] is None


def test_coordinate_axes_give_jaccard_and_its_chance(tmp_path):
    """Regions of axes must have the IoU of sets of these axes, at every level, and about its chance."""
    rng = np.random.default_rng(4)
    axes = {
        name: {where: rng.random(n) < share for where, n in RANKS.items()}
        for name, share in (("a", 0.7), ("b", 0.5), ("c", 0.3))
    }
    spaces = {
        name: subspaces_of(
            {where: np.eye(OUT[where])[:, np.flatnonzero(held)] for where, held in one.items()}, name
        )
        for name, one in axes.items()
    }
    sets = {
        name: Region.pack(one, {**METADATA, "granularity": "neuron", "name": name})
        for name, one in axes.items()
    }
    found = rows_of(compute_overlap(count_files(write_regions(tmp_path, spaces))))
    expected = rows_of(compute_overlap(count_regions(sets)))
    assert found.keys() == {key for key, row in expected.items() if row["k"] == 2}
    for key, row in found.items():
        assert row["dimensions"] == pytest.approx(expected[key]["intersection"], abs=1e-6)
        assert row["iou"] == pytest.approx(expected[key]["iou"], abs=1e-6, nan_ok=True)
        assert all(row[name] == expected[key][name] for name in ("smallest", "largest"))
    drawn, counted = (
        iou_by_address([("raw", count_in_memory(spaces))]),
        iou_by_address([("raw", count_regions(sets))]),
    )
    for name in ("layer", "projection", "pairs", "undefined", "median", "min", "max"):
        assert drawn[name].tolist() == pytest.approx(counted[name].tolist(), nan_ok=True)


def test_soft_iou_of_the_pages_example():
    """Five and four axes, two of them shared: 2 / 7."""
    eye = np.eye(9)
    assert soft_iou(eye[:, :5], eye[:, 3:7]) == pytest.approx(2 / 7)


def test_pairs_tables_and_memory_agree(tmp_path):
    regions = draw_subspaces(5, [1, 2, 3, 0])
    paths = write_regions(tmp_path, regions)
    counted = count_files(paths)
    write_table(tmp_path / "t", counted.table, SUBSPACES, counted.metadata)
    again = read_counted(tmp_path / "t")
    overlap = compute_overlap(again)
    assert conform(overlap, OVERLAP).equals(overlap)
    assert region_totals(again) == {name: region.n_selected for name, region in regions.items()}
    pairs = [("a", "b"), ("b", "c"), ("a", "d")]
    found = rows_of(overlap_of_pairs(paths, pairs, ["mixed"] * 3))
    assert len(rows_of(overlap)) == 6 * len(found) / 3
    for key, row in found.items():
        expected = rows_of(overlap)[key]
        assert all(row[name] == expected[name] for name in row if name != "between")
    empty = found["a & d", "model", None, None]
    assert empty["iou"] == 0 and empty["similarity"] is None
    write_table(tmp_path / "t", counted.table.slice(1), SUBSPACES, counted.metadata)
    with pytest.raises(StudyError, match="rows missing"):
        read_counted(tmp_path / "t")


def test_regions_of_other_numbers_of_available_dimensions_are_not_compared(tmp_path):
    regions = draw_subspaces(5, [2, 2])
    regions["b"].available["layers.0.q"] = 4
    with pytest.raises(StudyError, match="other numbers of available units"):
        count_files(write_regions(tmp_path, regions))


@pytest.mark.parametrize(("ranks", "i", "j"), [(64, 6, 6), (20, 3, 12)])
def test_chance_is_that_of_random_subspaces(ranks, i, j):
    """Mean and standard deviation of the trace; for 64 ranks, 6 and 6, similarity has .0938 and .0199."""
    rng = np.random.default_rng(0)
    draws, where = 1500, "layers.0.q"
    regions = [
        Subspaces.raw({where: random_basis(rng, ranks, n)}, {where: ranks}, METADATA)
        for _ in range(draws)
        for n in (i, j)
    ]
    _, shared = traces(regions, [(2 * d, 2 * d + 1) for d in range(draws)], [where])
    trace = shared[:, 0]
    chance = expected_overlap(np.array([[i], [j]]), np.array([ranks]), [(0, 1)], np.ones((1, 1), bool))
    variance = 2 * i * j * (ranks - i) * (ranks - j) / (ranks**2 * (ranks - 1) * (ranks + 2))
    error = 4 * np.sqrt(variance / draws)
    assert trace.mean() == pytest.approx(i * j / ranks, abs=error)
    assert trace.std() == pytest.approx(np.sqrt(variance), rel=0.08)
    assert chance.similarity[0, 0] == pytest.approx(max(i, j) / ranks)
    soft = trace / (i + j - trace)
    assert chance.iou[0, 0] == pytest.approx(soft.mean(), abs=4 * soft.std() / np.sqrt(draws))
    if ranks == 64:
        assert (6 / 64, np.sqrt(variance) / 6) == (
            pytest.approx(0.0938, abs=1e-4),
            pytest.approx(0.0199, abs=1e-4),
        )


def test_chance_sums_over_matrices():
    """Two matrices of a group: expectations add before they are divided, and the second order is small."""
    sizes, available = np.array([[2, 8], [3, 5]]), np.array([6, 100])
    whole, first = expected_overlap(
        sizes, available, [(0, 1)], np.array([[True, True], [True, False]])
    ).similarity[0]
    assert whole == pytest.approx((2 * 3 / 6 + 8 * 5 / 100) / (2 + 5)) and first == pytest.approx(3 / 6)
    # Everything is selected: the overlap is certain.
    certain = expected_overlap(np.array([[6], [6]]), np.array([6]), [(0, 1)], np.ones((1, 1), bool))
    assert certain.iou[0, 0] == certain.similarity[0, 0] == 1


def test_the_file_knows_what_it_holds(tmp_path):
    (path,) = write_regions(tmp_path, draw_subspaces(0, [3])).values()
    file = RegionFile(path)
    assert file.has_bases and file.selected == dict.fromkeys(file.shapes, 3)
    assert list(file.shapes) == ["layers.0.q", "layers.0.down", "layers.2.q", "layers.10.up"]


def test_the_core_of_several_sets_is_the_spectrum_of_their_mean_projector(tmp_path):
    """Two sets: (1 + cos) / 2 of the principal angles. One direction in all three sets: an eigenvalue of 1."""
    regions = draw_subspaces(6, [3, 3])
    rows = measure_spectrum(write_regions(tmp_path, regions)).to_pandas()
    for where in OUT:
        layer, projection = int(where.split(".")[1]), where.split(".")[2]
        found = rows[(rows["layer"] == layer) & (rows["projection"] == projection)]
        a, b = (regions[name].bases[where] for name in "ab")
        cosines = np.linalg.svd(a.T @ b, compute_uv=False)
        assert found["eigenvalue"].tolist() == pytest.approx((1 + cosines) / 2, abs=1e-6)
        assert found["place"].tolist() == [0, 1, 2] and (found["chance"].diff().dropna() < 0).all()
    eye = np.eye(5)
    assert spectrum([eye[:, [0, 1]], eye[:, [0, 2]], eye[:, [3, 0]]]).tolist() == pytest.approx([1, 1 / 3])


def test_the_chance_of_a_spectrum_is_that_of_random_subspaces():
    """Subspaces that are everything share everything."""
    rng, dimensions = np.random.default_rng(1), (6, 6, 6)
    drawn = [spectrum([random_basis(rng, 40, n) for n in dimensions]) for _ in range(200)]
    assert chance_spectrum(40, dimensions) == pytest.approx(np.mean(drawn, axis=0), abs=0.02)
    assert chance_spectrum(40, (40, 40)).tolist() == pytest.approx([1] * 40)
