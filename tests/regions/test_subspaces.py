"""Regions of ranks: the first directions of a score table, and the range of (I - P_u) P_s W."""

import numpy as np
import pyarrow as pa
import pytest

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import RANK_SCORES
from safety_regions.formats.parquet import write_groups
from safety_regions.formats.subspaces import Subspaces
from safety_regions.regions.refine import keep_as_many, subtract_region
from safety_regions.regions.select import select_region
from safety_regions.regions.subspaces import OUTSIDE, subtract_subspaces
from tests.oracles.ranks import projector, refined_space

OUT, RANKS = {"layers.0.q": 12, "layers.1.up": 16}, {"layers.0.q": 12, "layers.1.up": 10}


def basis_of(seed: int, out: int, k: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(out, k)))[0]


def write_scores(path, known: int = 10, order: int = 1, **metadata):
    """Write a score table of 10 ranks per address, of which ``known`` have a direction; return the directions."""
    groups, directions = [], {}
    for seed, (where, out) in enumerate(OUT.items()):
        basis = basis_of(seed, out, 10)
        basis[:, known:] = 0
        directions[where] = basis
        rows = np.arange(10)[::order]
        groups.append(
            pa.table(
                {
                    "layer": [int(where.split(".")[1])] * 10,
                    "projection": [where.split(".")[2]] * 10,
                    "rank": rows,
                    "score": [float(10 - r) if r < known else 0.0 for r in rows],
                    "direction": [basis[:, r].astype(np.float32).tolist() for r in rows],
                }
            )
        )
    about = {
        "granularity": "rank", "shapes": {w: [n] for w, n in RANKS.items()}, "kept": {"matrix": 0.8},
        "backbone": "tiny", "name": "a", "response_tokens": known, **metadata,
    }  # fmt: skip
    write_groups(path, groups, RANK_SCORES, about)
    return directions


@pytest.mark.parametrize("order", [1, -1])
def test_the_first_ranks_of_each_matrix_are_selected(tmp_path, order):
    directions = write_scores(tmp_path / "s", order=order)
    region = select_region(tmp_path / "s", "matrix", 0.5)
    assert isinstance(region, Subspaces) and region.selected_at == {"layers.0.q": 6, "layers.1.up": 5}
    assert region.available == RANKS and region.metadata["refinement"] == "raw"
    for where, basis in region.bases.items():
        assert np.array_equal(basis, directions[where][:, : basis.shape[1]].astype(np.float32))
    smaller = select_region(tmp_path / "s", "matrix", 0.2)  # nested: the first columns
    assert all(np.array_equal(b, region.bases[w][:, : b.shape[1]]) for w, b in smaller.bases.items())
    assert smaller.selected_at == {"layers.0.q": 2, "layers.1.up": 2}


def test_fewer_tokens_than_ranks_is_an_error_that_says_what_to_do(tmp_path):
    write_scores(tmp_path / "s", known=4)
    expected = r"layers\.0\.q: found 4 directions, from responses of 4 tokens in all.*the 6 ranks.*`samples:"
    with pytest.raises(StudyError, match=expected):
        select_region(tmp_path / "s", "matrix", 0.5)
    assert select_region(tmp_path / "s", "matrix", 0.34).n_selected == 4 + 3
    with pytest.raises(StudyError, match="kept fractions"):
        select_region(tmp_path / "s", "matrix", 0.9)


def region_of(bases, name="a", **metadata) -> Subspaces:
    about = {
        "granularity": "rank",
        "scope": "matrix",
        "fraction": 0.5,
        "backbone": "tiny",
        "name": name,
        **metadata,
    }
    return Subspaces.raw(bases, RANKS, about)


def pair(k: int = 3, removed: int = 4) -> tuple[Subspaces, Subspaces]:
    """Return a region and one to subtract, in general position: at small angles as well as large ones."""
    u = {where: basis_of(5, out, removed) for where, out in OUT.items()}
    s = {
        where: np.linalg.qr(u[where][:, :k] @ np.diag([2.0, 0.5, 0.0][:k]) + basis_of(6, out, k))[0]
        for where, out in OUT.items()
    }
    return region_of(s), region_of(u, "u")


def test_without_a_tolerance_the_region_is_the_range_of_the_change():
    safety, utility = pair()
    found = subtract_subspaces(safety, utility, outside=0)
    for where, basis in found.bases.items():
        weight = np.random.default_rng(9).normal(size=(OUT[where], 30))
        expected = refined_space(safety.bases[where], utility.bases[where], weight)
        assert basis.shape == expected.shape
        assert np.abs(projector(basis.astype(float)) - projector(expected)).max() < 1e-6
    # Few ranks are left if utility takes nearly all of them: min(R - dim U_u, dim U_s).
    wide = region_of({where: basis_of(7, out, out)[:, : RANKS[where] - 1] for where, out in OUT.items()}, "u")
    assert subtract_subspaces(safety, wide, outside=1e-9).bases["layers.0.q"].shape[1] == 1


def test_directions_that_are_mostly_inside_do_not_remain():
    safety, utility = pair()
    found = subtract_region(safety, utility)
    assert found.metadata["refinement"] == "minus-u" and found.metadata["outside"] == OUTSIDE
    assert found.metadata["subtracted"]["name"] == "u"
    assert found.available == {where: n - 4 for where, n in RANKS.items()}
    for where, basis in found.bases.items():
        u, s = utility.bases[where], safety.bases[where]
        sines = np.linalg.svd(s - u @ (u.T @ s), compute_uv=False) ** 2
        assert basis.shape[1] == (sines >= 0.5).sum() < 3 and sines[-1] < 0.5
        assert np.abs(u.T @ basis).max() < 1e-6  # what remains is outside, as a whole
    assert subtract_region(safety, safety).n_selected == 0
    with pytest.raises(StudyError, match="refined already"):
        subtract_region(found, utility)
    with pytest.raises(StudyError, match="backbone"):
        subtract_region(safety, region_of(utility.bases, "u", backbone="other"))


def test_a_refined_shuffle_is_cut_to_the_size_of_the_region():
    safety, utility = pair(k=3)
    like = subtract_region(safety, utility)
    shuffled = subtract_region(region_of({w: basis_of(8, n, 3) for w, n in OUT.items()}, "a~1"), utility)
    found = keep_as_many(shuffled, like, "no scores are read")
    for where, basis in found.bases.items():
        k = min(like.selected_at[where], shuffled.selected_at[where])
        assert np.array_equal(basis, shuffled.bases[where][:, :k])
    assert found.available == shuffled.available and found.metadata == shuffled.metadata


def test_chance_between_refined_regions_is_that_of_what_is_left():
    """U_u of 20 of 64 ranks: regions of 6 have a similarity of 6 / 44, not 6 / 64."""
    rng, where, utility = np.random.default_rng(0), "layers.0.q", basis_of(1, 64, 20)

    def drawn(k: int) -> np.ndarray:
        region = Subspaces.raw({where: np.linalg.qr(rng.normal(size=(64, k)))[0]}, {where: 64}, {})
        other = Subspaces.raw({where: utility}, {where: 64}, {})
        left = subtract_subspaces(region, other, outside=0)
        assert left.available == {where: 44}
        return left.bases[where]

    similar = [np.square(drawn(6).T @ drawn(6)).sum() / 6 for _ in range(300)]
    assert np.mean(similar) == pytest.approx(6 / 44, abs=4 * np.std(similar) / np.sqrt(300))
    assert np.mean(similar) > 6 / 64 + 0.02
