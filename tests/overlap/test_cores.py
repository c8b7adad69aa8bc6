"""What k regions have in common, counted unit by unit over all subsets; and its expectation, subset by subset."""

from itertools import combinations, pairwise
from statistics import mean

import numpy as np
import pytest

from safety_regions.overlap.chance import densities, expect
from safety_regions.overlap.cores import compare_cores, core_rows
from safety_regions.overlap.iou import compute_overlap
from safety_regions.overlap.membership import addresses_of, count_membership, sizes_at
from tests.overlap.memberships import draw_regions, membership_of, write_regions
from tests.regions.small_regions import region_of, units


def literal(regions: dict, k: int) -> dict[str, list[float]]:
    """Return intersection, union and IoU of every subset of k regions."""
    found = {"intersection": [], "union": [], "iou": []}
    for team in combinations([units(region) for region in regions.values()], k):
        both, either = set.intersection(*team), set.union(*team)
        found["intersection"].append(len(both))
        found["union"].append(len(either))
        found["iou"] += [len(both) / len(either)] if either else []
    return found


@pytest.mark.parametrize("granularity", ["weight", "neuron", "layer"])
@pytest.mark.parametrize(("seed", "n"), [(0, 1), (1, 3), (2, 6), (3, 9)])
def test_values_are_those_of_all_subsets(tmp_path, seed, n, granularity):
    regions = draw_regions(seed, n, granularity)
    rows = core_rows(membership_of(tmp_path, regions))
    assert [row["k"] for row in rows] == list(range(1, n + 1))
    for row in rows:
        expected = literal(regions, row["k"])
        assert row["subsets"] == len(expected["union"])
        for name, values in expected.items():
            wanted = (mean(values), min(values), max(values)) if values else (None,) * 3
            assert (row[name], row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(wanted)
    for before, row in pairwise(rows):
        wanted = row["intersection"] / before["intersection"] if before["intersection"] else None
        assert row["retained"] == (None if wanted is None else pytest.approx(wanted))


@pytest.mark.parametrize("scope", ["matrix", "layer", "global"])
def test_chance_is_the_mean_expectation_over_subsets(tmp_path, scope):
    membership = membership_of(tmp_path, draw_regions(4, 5, scope=scope))
    where = addresses_of(membership)
    available = np.array([membership.metadata["available"][address] for address in where])
    density = densities(scope, where, sizes_at(membership), available)
    for row in core_rows(membership):
        teams = [expect(density[list(team)], available) for team in combinations(range(5), row["k"])]
        assert row["chance_intersection"] == pytest.approx(mean(t.intersection.sum() for t in teams))
        assert row["chance_union"] == pytest.approx(mean(t.union.sum() for t in teams))


def test_values_are_means_of_the_overlap_table(tmp_path):
    """The two ways of counting agree: by numbers of sets here, by combinations there."""
    membership = membership_of(tmp_path, draw_regions(5, 6))
    overlap = compute_overlap(membership).to_pandas()
    overlap = overlap[overlap["level"].astype(str) == "model"]
    for row in core_rows(membership)[1:]:
        same = overlap[overlap["k"] == row["k"]]
        assert row["intersection"] == pytest.approx(same["intersection"].mean())
        assert row["union"] == pytest.approx(same["union"].mean())
        assert row["iou"] == pytest.approx(same["iou"].mean())


def test_independent_regions_keep_what_chance_says(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"layers.0.q": (200, 300)}
    regions = {f"r{i}": region_of(rng, 0.5, shapes) for i in range(6)}
    for row in core_rows(membership_of(tmp_path, regions)):
        assert row["intersection"] == pytest.approx(row["chance_intersection"], rel=0.06)
        assert row["union"] == pytest.approx(row["chance_union"], rel=0.02)
        assert row["retained"] is None if row["k"] == 1 else row["retained"] == pytest.approx(0.5, abs=0.03)


def test_groups_are_rows_of_one_table(tmp_path):
    regions = draw_regions(6, 4)
    paths = write_regions(tmp_path, regions)
    one, two = list(paths)[:2], list(paths)[2:]
    groups = [{"kind": "sets", "draw": 0, "names": one}, {"kind": "regrouped", "draw": 2, "names": two}]
    rows = compare_cores(paths, groups).to_pylist()
    assert [(row["kind"], row["draw"], row["k"]) for row in rows] == [
        ("sets", 0, 1), ("sets", 0, 2), ("regrouped", 2, 1), ("regrouped", 2, 2),
    ]  # fmt: skip
    for names, part in ((one, rows[:2]), (two, rows[2:])):
        counted = count_membership({name: paths[name] for name in names})
        for row, alone in zip(part, core_rows(counted), strict=True):
            assert {key: row[key] for key in alone} == pytest.approx(alone)
