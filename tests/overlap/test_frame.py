"""Floor, ceiling and normalised overlap must equal their definitions, computed literally from the regions."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from safety_regions.formats.contracts import OVERLAP
from safety_regions.formats.parquet import conform
from safety_regions.overlap.frame import COVERED, Frame, _floor, frame_overlap
from safety_regions.overlap.iou import compute_overlap, overlap_of_pairs
from safety_regions.overlap.membership import count_membership
from safety_regions.overlap.placements import placed_iou
from tests.overlap.memberships import draw_regions, membership_of, write_regions
from tests.overlap.test_iou import by_key, measured

SETS, UTILITY = ("a", "b", "c"), ("u", "v")
SUFFIXES = (
    "",
    *(f"{half}~{seed}r" for half in ("", ".1") for seed in (1, 2, 3)),
    "~1m",
    "~2m",
    "~3m",
    ".1",
    ".2",
)


def drawn(folder, granularity="weight"):
    """Write regions of every name; return (paths, regions)."""
    names = [name + suffix for suffix in SUFFIXES for name in (*SETS, *UTILITY)]
    regions = dict(zip(names, draw_regions(5, len(names), granularity, "global").values(), strict=True))
    return write_regions(folder, regions), regions


def framed(paths, **options):
    membership = count_membership({name: paths[name] for name in SETS})
    return by_key(frame_overlap(membership, paths, Frame(UTILITY, **options)))


def iou_of(paths, a, b, key):
    """Return the IoU of two names at the level of a row, from the function that counts pairs."""
    rows = by_key(overlap_of_pairs({a: paths[a], b: paths[b]}, [(a, b)], [None]))
    return rows[" & ".join(sorted((a, b))), 2, *key[2:]]["iou"]


def test_pairs_are_those_of_the_membership(tmp_path):
    regions = draw_regions(3, 5)
    membership = membership_of(tmp_path, regions)
    paths = {name: tmp_path / f"{name}.safetensors" for name in regions}
    pairs = list(combinations(regions, 2))
    found, every = overlap_of_pairs(paths, pairs, [None] * len(pairs)), compute_overlap(membership)
    two = {key: values for key, values in measured(every).items() if key[1] == 2}
    assert measured(found) == two
    chances = {key: row["chance"] for key, row in by_key(every).items()}
    assert {key: row["chance"] for key, row in by_key(found).items()} == pytest.approx(
        {key: chances[key] for key in two}
    )


@pytest.mark.slow
def test_every_number_is_its_definition(tmp_path):
    paths, _ = drawn(tmp_path)
    rows = framed(paths, floors=3, kind="r", marginals=True, halves=True)
    assert len({key[0] for key in rows}) == 4 + 6 + 1
    for key, row in rows.items():
        if key[1] != 2:
            assert row["ceiling"] is None and row["normalised"] is None and row["floor"] is not None
            continue
        a, b = key[0].split(" & ")

        def shuffles(half, kind, a=a, b=b, key=key):
            return [
                iou_of(paths, f"{a}{half}~{seed}{kind}", f"{b}{half}~{seed}{kind}", key) for seed in (1, 2, 3)
            ]

        def mean_of(values):
            known = [value for value in values if value is not None]
            return pytest.approx(np.mean(known)) if known else None

        assert row["floor"] == mean_of(shuffles("", "r"))
        assert row["floor_marginals"] == mean_of(shuffles("", "m"))
        assert row["half_floor"] == mean_of(shuffles(".1", "r"))
        known = [iou for iou in shuffles("", "r") if iou is not None]
        if len(known) == 3:
            spread = stats.t.ppf(0.975, 2) * np.std(known, ddof=1) * np.sqrt(1 + 1 / 3)
            low, high = max(0, np.mean(known) - spread), min(1, np.mean(known) + spread)
            assert (row["floor_low"], row["floor_high"]) == pytest.approx((low, high))
        halves = [iou_of(paths, f"{a}.{h}", f"{b}.{h}", key) for h in (1, 2)]
        within = [iou_of(paths, f"{name}.1", f"{name}.2", key) for name in (a, b)]
        if None not in halves + within + shuffles(".1", "r"):
            assert row["half_iou"] == pytest.approx(np.mean(halves))
            assert row["ceiling"] == pytest.approx(np.mean(within))
            room = row["ceiling"] - row["half_floor"]
            expected = (row["half_iou"] - row["half_floor"]) / room if room > 0 else None
            assert row["normalised"] == (pytest.approx(expected) if room > 0 else None)


@pytest.mark.parametrize("m", [2, 5, 40])
def test_the_interval_of_the_floor_covers_one_more_shuffle(m):
    """In 95 % of studies, whatever the number of shuffles."""
    rng = np.random.default_rng(m)
    drawn = rng.normal(0.1, 0.004, (m + 1, 4000))  # a study in each column; the last row is one more shuffle
    _, low, high = _floor(drawn[:-1]).values()
    covered = np.mean((low <= drawn[-1]) & (drawn[-1] <= high))
    assert abs(covered - COVERED) < 4.5 * np.sqrt(COVERED * (1 - COVERED) / 4000)


def test_roles_say_who_is_compared_with_whom(tmp_path):
    paths, _ = drawn(tmp_path)
    for key, row in framed(paths).items():
        harmful = set(key[0].split(" & ")) & set(SETS)
        assert row["between"] == (
            "identification" if len(harmful) == key[1] else "mixed" if harmful else "utility"
        )
        assert row["floor"] is row["ceiling"] is row["normalised"] is None


def test_without_frame_the_overlap_stays_as_it_is(tmp_path):
    paths, _ = drawn(tmp_path)
    membership = count_membership({name: paths[name] for name in SETS})
    alone = frame_overlap(membership, {}, Frame())
    assert alone.equals(compute_overlap(membership, "identification")) and conform(alone, OVERLAP).equals(
        alone
    )


@pytest.mark.parametrize("contiguous", [True, False])
def test_the_floor_of_layers_is_exact_and_needs_no_shuffle(tmp_path, contiguous):
    paths, regions = drawn(tmp_path, "layer")
    kept = {name: path for name, path in paths.items() if "~" not in name}
    for key, row in framed(kept, floors=1, contiguous=contiguous).items():
        if key[1] == 2:
            a, b = key[0].split(" & ")
            placed = placed_iou(11, regions[a].n_selected, regions[b].n_selected, contiguous)
            assert row["floor"] == (None if np.isnan(placed.mean) else pytest.approx(placed.mean))
