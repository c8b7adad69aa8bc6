"""The search returns the published ranges from the published counts, planted ranges, and always a local peak."""

import csv
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.methods.safelayer.onset import Span
from safety_regions.methods.safelayer.search import Plan, localise
from tests.oracles import layers as oracle
from tests.paths import ORACLES

TABLE = ORACLES / "safelayer_table1.csv"
PUBLISHED = {
    "Llama-3-8B-Instruct": (6, 12),
    "Llama-2-7b-chat": (6, 14),
    "gemma-2b-it": (6, 11),
    "Phi-3-mini-4k-instruct": (11, 15),
}


def plan(alpha=1.2, **changes) -> Plan:
    given_plan = {
        "direction": "amplify",
        "beta": 0.05,
        "most_steps": 10,
        "spread": 15,
        "window": 2,
        "search": "walk",
    }
    return Plan(alpha, **{**given_plan, **changes})


def published() -> dict[str, list[dict]]:
    rows = defaultdict(list)
    with open(TABLE, newline="") as file:
        for row in csv.DictReader(file):
            rows[row["backbone"]].append(row)
    return rows


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_the_published_counts_give_the_published_range(backbone):
    """From every published upper bound up to the peak; counts that were not published are never asked for.

    The initial lower bound is that of the published sweep of upper bounds; the initial upper bound was read by eye
    and is not published (but for 12 of Llama-3), so each that the paper's upward sweep can have begun with is one.
    """
    rows = published()[backbone]
    counts = {
        (float(r["alpha"]), int(r["first_layer"]), int(r["last_layer"])): int(r["refusals"]) for r in rows
    }
    (alpha,) = {key[0] for key in counts}
    starts = [Span(key[1], key[2]) for key, row in zip(counts, rows, strict=False) if row["bound"] == "upper"]
    starts = [start for start in starts if start.last <= PUBLISHED[backbone][1]]
    assert len(starts) == 3
    for start in starts:
        found = localise(lambda *key: counts[key], start, 32, plan(alpha))
        assert found.span == PUBLISHED[backbone]
        assert found.refusals == counts[alpha, *PUBLISHED[backbone]]
        assert {(m.alpha, m.first, m.last): m.refusals for m in found.measured} == counts


def test_llama_3_passes_a_neighbour_that_beats_the_start():
    rows = published()["Llama-3-8B-Instruct"]
    lower = {int(r["first_layer"]): int(r["refusals"]) for r in rows if r["bound"] == "lower"}
    assert lower[8] > lower[7] and oracle.peak(lower, 6, 1) and not oracle.peak(lower, 8, 1)


@st.composite
def planted(draw):
    """A range, a start, and a count that falls by at least one question with each layer away from the range."""
    n = draw(st.integers(3, 32))
    first = draw(st.integers(0, n - 1))
    last = draw(st.integers(first, n - 1))
    begin = draw(st.integers(0, last))
    return n, Span(first, last), Span(begin, draw(st.integers(begin, n - 1)))


@given(planted(), st.sampled_from([1.2, 0.8]), st.integers(1, 9))
def test_a_planted_range_is_found_from_anywhere(where, alpha, slope):
    n, planted_span, start = where
    sign = 1 if alpha > 1 else -1

    def count(_alpha, first, last):
        return 500 - sign * slope * (abs(first - planted_span.first) + abs(last - planted_span.last))

    assert localise(count, start, n, plan(alpha)).span == planted_span
    assert localise(count, start, n, plan(alpha, search="grid")).span == planted_span


@given(planted(), st.integers(0, 4), st.integers(0, 10**6), st.sampled_from([1.1, 0.9]))
def test_noise_ends_at_a_local_peak_and_nothing_is_measured_twice(where, levels, seed, alpha):
    n, _, start = where
    asked = []

    def count(*key):
        asked.append(key)
        return hash((seed, key)) % (levels + 1)

    found = localise(count, start, n, plan(alpha))
    sign = 1 if alpha > 1 else -1
    counts = {(m.first, m.last): m.refusals for m in found.measured}
    upper = {last: value for (first, last), value in counts.items() if first == start.first}
    lower = {first: value for (first, last), value in counts.items() if last == found.span.last}
    assert oracle.peak(upper, found.span.last, sign) and oracle.peak(lower, found.span.first, sign)
    reach = range(-2, 3)
    assert {b + d for d in reach for b in [found.span.last]} & set(range(start.first, n)) <= upper.keys()
    assert {b + d for d in reach for b in [found.span.first]} & set(
        range(found.span.last + 1)
    ) <= lower.keys()
    assert len(asked) == len(set(asked)) == len(found.measured)
    assert localise(count, start, n, plan(alpha)) == found


def test_equal_counts_leave_the_start():
    found = localise(lambda *_: 7, Span(2, 4), 9, plan())
    assert found.span == (2, 4) and found.refusals == 7


def test_the_grid_measures_every_range_and_prefers_the_shortest():
    found = localise(lambda *_: 7, Span(2, 4), 5, plan(search="grid"))
    assert len(found.measured) == 15 and found.span == (0, 0)


def steps(spread_at: dict[float, int]):
    """A count whose lower bounds 0, 1, 2, ... alternate around 100 by what ``spread_at`` says of alpha."""
    return lambda alpha, first, last: 100 + (-1) ** first * spread_at.get(alpha, 0)


@pytest.mark.parametrize("direction, expected", [("amplify", 1.15), ("attenuate", 0.85)])
def test_alpha_is_the_first_step_whose_spread_is_wide_enough(direction, expected):
    spreads = {1.05: 3, 1.1: 14, 1.15: 15, 1.2: 90, 0.95: 3, 0.9: 14, 0.85: 15, 0.8: 90}
    found = localise(steps(spreads), Span(3, 4), 9, plan(None, direction=direction, spread=14.5))
    assert found.alpha == expected and found.spread_reached
    # Lower bounds 1 to 4: two up, two down, so the deviation is the step itself.
    assert found.spread == 15
    assert max(abs(m.alpha - 1) for m in found.measured) == pytest.approx(0.15)


def test_alpha_of_the_widest_spread_where_none_suffices():
    found = localise(steps({1.1: 9, 1.2: 9, 1.3: 4}), Span(3, 4), 9, plan(None))
    assert found.alpha == 1.1 and found.spread == 9 and found.spread_reached is False


def test_alpha_stays_above_zero():
    found = localise(steps({}), Span(3, 4), 9, plan(None, direction="attenuate", beta=0.4))
    assert {m.alpha for m in found.measured} == {0.6, 0.2}


def test_a_given_alpha_is_not_searched_for():
    found = localise(steps({}), Span(3, 4), 9, plan(1.3))
    assert (
        found.alpha == 1.3
        and found.spread is None
        and {m.bound for m in found.measured} == {"upper", "lower"}
    )
