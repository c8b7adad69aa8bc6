"""The overlap with ordinary pairs as its zero must equal its definition, and be null where there is no such zero."""

import numpy as np
import pytest

from safety_regions.overlap.frame import Frame, frame_overlap
from safety_regions.overlap.membership import count_membership
from safety_regions.overlap.ordinary import normalised_ordinary
from tests.overlap.test_frame import SETS, UTILITY, drawn


def table_of(folder, frame):
    paths, _ = drawn(folder)
    return frame_overlap(count_membership({name: paths[name] for name in SETS}), paths, frame)


def test_every_number_is_its_definition(tmp_path):
    table = table_of(tmp_path, Frame(UTILITY))
    half, ceiling = np.random.default_rng(0).uniform(0, 1, (2, table.num_rows))
    half[::9] = np.nan
    found = normalised_ordinary(table, half, ceiling)
    rows = table.select(["combination", "level", "layer", "projection"]).to_pylist()
    place = {tuple(row.values()): i for i, row in enumerate(rows)}
    known = 0
    for key, i in place.items():
        sets = key[0].split(" & ")
        if len(sets) > 2 or set(sets) & set(UTILITY):
            assert np.isnan(found[i])
            continue
        mixed = [half[place[" & ".join(sorted((name, u))), *key[1:]]] for name in sets for u in UTILITY]
        room = ceiling[i] - np.mean(mixed)
        expected = (half[i] - np.mean(mixed)) / room if room > 0 else np.nan
        assert found[i] == pytest.approx(expected, nan_ok=True)
        known += not np.isnan(expected)
    assert known > 5


def test_the_frame_has_it_where_there_are_halves_and_utility_sets(tmp_path):
    whole = table_of(tmp_path, Frame(UTILITY, halves=True))
    half, ceiling = (
        np.array([np.nan if x is None else x for x in whole[name].to_pylist()])
        for name in ("half_iou", "ceiling")
    )
    expected = normalised_ordinary(whole, half, ceiling)
    found = [np.nan if x is None else x for x in whole["normalised_ordinary"].to_pylist()]
    assert found == pytest.approx(expected, nan_ok=True) and not np.isnan(expected).all()
    for frame in (Frame((), halves=True), Frame(UTILITY)):
        table = table_of(tmp_path, frame)
        assert table["normalised_ordinary"].null_count == table.num_rows
