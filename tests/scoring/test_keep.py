"""The stored scores are exactly the best of every scope, as a literal sort finds them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.scoring.keep import as_table, keep_top
from safety_regions.units.fractions import scope_count
from safety_regions.units.granularity import GRANULARITIES

SHAPES = {"layers.0.q": (4, 6), "layers.0.down": (3, 5), "layers.1.q": (4, 6)}
values = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 0.5, 1.0, 3.0, 1e-30, 7e8])


@st.composite
def scored(draw):
    made = {}
    for address, (rows, columns) in SHAPES.items():
        flat = draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
        made[address] = torch.tensor(flat).view(rows, columns)
    return made


def groups_of(scope: str) -> list[list[tuple[str, int, int]]]:
    units = [(a, i, j) for a, (rows, columns) in SHAPES.items() for i in range(rows) for j in range(columns)]
    key = {
        "row": lambda u: u[:2],
        "matrix": lambda u: u[0],
        "layer": lambda u: u[0].split(".")[1],
        "global": lambda u: None,
    }[scope]
    groups: dict = {}
    for unit in units:
        groups.setdefault(key(unit), []).append(unit)
    return list(groups.values())


def literal(scores: dict, kept: dict[str, float]) -> set:
    chosen = set()
    for scope, fraction in kept.items():
        for units in groups_of(scope):
            ranked = sorted(units, key=lambda u: (-scores[u[0]][u[1], u[2]].item(), units.index(u)))
            chosen |= set(ranked[: scope_count(fraction, len(units))])
    return chosen


@given(scored(), st.dictionaries(st.sampled_from(["row", "matrix", "layer", "global"]),
                                 st.sampled_from([0.01, 0.1, 0.34, 0.5, 1.0]), min_size=1))  # fmt: skip
def test_kept_is_the_best_of_every_scope(scores, kept):
    found = {
        (address, i, j)
        for address, _, mask in keep_top(lambda: iter(scores.items()), kept)
        for i, j in mask.nonzero().tolist()
    }
    assert found == literal(scores, kept)


@given(scored())
def test_rows_of_the_table_are_the_kept_units(scores):
    for address, values, mask in keep_top(lambda: iter(scores.items()), {"matrix": 0.34}):
        rows = as_table(GRANULARITIES["weight"], address, values, mask).to_pylist()
        assert [(r["row"], r["column"]) for r in rows] == [tuple(u) for u in mask.nonzero().tolist()]
        assert all(r["score"] == values[r["row"], r["column"]] for r in rows)
        assert {(r["layer"], r["projection"]) for r in rows} <= {
            (int(address.split(".")[1]), address.split(".")[2])
        }


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_names_its_address(value):
    scores = {"layers.0.q": torch.tensor([[1.0, value]])}
    with pytest.raises(StudyError, match=r"scores of layers\.0\.q"):
        list(keep_top(lambda: iter(scores.items()), {"row": 0.5}))


def test_neurons_take_their_lists_along():
    scores, ranks = torch.tensor([0.5, 1.0, 0.25]), torch.tensor([[2, 3], [1, 1], [4, 5]], dtype=torch.int32)
    mask = torch.tensor([True, True, False])
    rows = as_table(
        GRANULARITIES["neuron"], "layers.2.v", scores, mask, {"ranks": ranks, "importances": ranks / 2}
    ).to_pylist()
    place = {"layer": 2, "projection": "v"}
    assert rows == [
        {**place, "unit": 0, "score": 0.5, "ranks": [2, 3], "importances": [1.0, 1.5]},
        {**place, "unit": 1, "score": 1.0, "ranks": [1, 1], "importances": [0.5, 0.5]},
    ]
