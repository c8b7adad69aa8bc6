"""A region must expand to the weights of its units."""

from itertools import product

import numpy as np
import pytest

from safety_regions.errors import StudyError
from safety_regions.formats.expand import Factor, expand_region, spread_units
from safety_regions.formats.region import Region
from safety_regions.units.granularity import GRANULARITIES

SHAPES = {"layers.0.q": (4, 3), "layers.0.gate": (5, 3), "layers.0.down": (3, 5), "layers.1.q": (4, 3)}
RANDOM = np.random.default_rng(0)


def region(flags: dict[str, np.ndarray], granularity: str) -> Region:
    return Region.pack(flags, {"granularity": granularity, "scope": "matrix", "fraction": 0.4})


def test_weights_stay_what_they_are():
    flags = {where: RANDOM.random(shape) < 0.5 for where, shape in SHAPES.items()}
    expanded = expand_region(region(flags, "weight"), SHAPES)
    assert all(np.array_equal(expanded.flags(where), flags[where]) for where in SHAPES)


def test_a_neuron_is_a_row_and_of_down_a_column():
    flags = {"layers.0.q": np.array([1, 0, 0, 1], bool), "layers.0.down": np.array([0, 1, 0, 0, 0], bool)}
    expanded = expand_region(region(flags, "neuron"), SHAPES)
    for where, (rows, columns) in SHAPES.items():
        for i in range(rows):
            for j in range(columns):
                unit = j if where.endswith("down") else i
                assert expanded.flags(where)[i, j] == (where in flags and flags[where][unit]), (where, i, j)
    assert expanded.metadata["granularity"] == "weight" and expanded.n_selected == 2 * 3 + 3


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_head_is_its_rows_of_q_and_columns_of_o_and_a_whole_group_those_of_k_and_v(kv_heads):
    """Four query heads of two rows each; each key-value head serves the next 4 / kv_heads of them."""
    q, kv = (8, 6), (2 * kv_heads, 6)
    shapes = {
        "layers.0.q": q,
        "layers.0.k": kv,
        "layers.0.v": kv,
        "layers.0.o": (6, 8),
        "layers.0.up": (5, 6),
    }
    for chosen in product([False, True], repeat=4):
        expanded = expand_region(region({"layers.0.heads": np.array(chosen)}, "head"), shapes)
        for where, shape in shapes.items():
            flags = expanded.flags(where)
            for i, j in np.ndindex(*shape):
                group = range(i // 2 * (4 // kv_heads), (i // 2 + 1) * (4 // kv_heads))
                owners = {"q": [i // 2], "k": group, "v": group, "o": [j // 2]}.get(where.split(".")[-1])
                expected = owners is not None and all(chosen[head] for head in owners)
                assert flags[i, j] == expected, (where, i, j)


@pytest.mark.parametrize("where", ["q", "k", "o"])
def test_heads_of_another_model_are_refused(where):
    shapes = {"layers.0.q": (6, 4), "layers.0.k": (2, 4), "layers.0.o": (4, 6)}
    spread_units(np.ones(3, bool), GRANULARITIES["head"], f"layers.0.{where}", shapes)
    with pytest.raises(StudyError, match=rf"layers\.0\.{where}: found 4 heads"):
        spread_units(np.ones(4, bool), GRANULARITIES["head"], f"layers.0.{where}", shapes)


def test_a_layer_is_all_its_projections():
    expanded = expand_region(region({"layers": np.array([False, True])}, "layer"), SHAPES)
    assert {where: int(expanded.flags(where).sum()) for where in SHAPES} == {
        "layers.0.q": 0, "layers.0.gate": 0, "layers.0.down": 0, "layers.1.q": 12,
    }  # fmt: skip


def test_factors_stand_for_the_weights_they_move_most():
    shapes = {"layers.0.q": (4, 3)}
    a, b = RANDOM.normal(size=(2, 3)), RANDOM.normal(size=(4, 2))
    flags = {"layers.0.q.A": RANDOM.random((2, 3)) < 0.7, "layers.0.q.B": RANDOM.random((4, 2)) < 0.7}
    expanded = expand_region(
        region(flags, "lora_weight"), shapes, {"layers.0.q": Factor("layers.0.q.A", a, b)}
    )
    effect = np.zeros((4, 3))
    for i in range(4):
        for j in range(3):
            effect[i, j] = abs(
                sum(
                    b[i, r] * flags["layers.0.q.B"][i, r] * a[r, j] * flags["layers.0.q.A"][r, j]
                    for r in range(2)
                )
            )
    ranked = sorted(np.ndindex(4, 3), key=lambda at: (-effect[at], at))[: int(0.4 * 12)]
    expected = {at for at in ranked if effect[at] > 0}
    assert {tuple(at) for at in np.argwhere(expanded.flags("layers.0.q")).tolist()} == expected


def test_units_that_do_not_fit_are_refused():
    with pytest.raises(StudyError, match=r"layers\.0\.q"):
        expand_region(region({"layers.0.q": np.ones(7, bool)}, "neuron"), SHAPES)
