"""The ladder figure must show its table, and its table must equal the overlap table."""

import io

import numpy as np
import pytest

from safety_regions.report.combinations import FRAME, ROLES, pair_rows
from safety_regions.report.figures.ladder import LOOKS, draw_ladder, ladder
from tests.report import synthetic_tables as synthetic
from tests.report.shown import marks, values, words

WHERE = "organism / snip / row-0.05"


def tables(k: int, utility: tuple[str, ...] = synthetic.UTILITY, refinements: int = 2, framed: bool = True):
    """Yield overlap tables of ``k`` identification sets, with pairs only."""
    for refinement in synthetic.REFINEMENTS[:refinements]:
        found = synthetic.regions(k + len(utility), 1, refinement, units=60)
        table = synthetic.overlap(found, ks=(2,), utility=utility)
        yield refinement, synthetic.framed(table) if framed else table


def test_a_row_is_a_pair_of_the_overlap_table():
    rows = ladder(tables(3))
    assert list(rows) == ["refinement", "between", "a", "b", *FRAME]
    assert rows["between"].tolist() == 2 * ([ROLES[0]] * 3 + [ROLES[1]] * 6 + [ROLES[2]])
    for refinement, table in tables(3):
        one = rows[rows["refinement"] == refinement].set_index(["a", "b"])
        literal = [r for r in table.to_pylist() if r["level"] == "model" and r["k"] == 2]
        assert len(one) == len(literal) == 10
        for r in literal:
            found = one.loc[tuple(r["combination"].split(" & "))]
            assert found["between"] == r["between"]
            assert [None if np.isnan(found[name]) else found[name] for name in FRAME] == [
                r[name] for name in FRAME
            ]


@pytest.mark.parametrize("level", ["layer", "projection"])
def test_pairs_of_a_level_say_where(level):
    frame = pair_rows(tables(2, utility=()), level)
    assert frame[level].notna().all() and len(frame) == 2 * {"layer": 1, "projection": 7}[level]


@pytest.mark.parametrize("k", [1, 2, 16])
def test_the_points_are_those_of_the_table(k):
    rows = ladder(tables(k, utility=() if k < 3 else synthetic.UTILITY[:1], refinements=1 + (k == 2)))
    figure = draw_ladder(rows, WHERE)
    figure.savefig(io.BytesIO(), format="svg")
    said = words(figure)
    assert any(WHERE in text for text in said) and ("needs two sets" in said) == (k == 1)
    for name, look in LOOKS.items():
        shown = marks(
            figure.axes[0],
            color=look["color"],
            marker=look["marker"],
            markerfacecolor=look["markerfacecolor"],
        )
        assert values(x for x, _ in shown) == values(rows[name])
    if k == 2:
        labels = [f"{r}\nidentification, 1 pair\n" for r in synthetic.REFINEMENTS[:2]]
        assert all(any(text.startswith(label) for text in said) for label in labels)
    if k == 16:
        assert any("identification, 120 pairs" in t for t in said) and any(
            "mixed, 16 pairs" in t for t in said
        )


def segments(axis) -> list[float]:
    """Return the x positions of vertical strokes."""
    return [
        float(segment[0][0])
        for c in axis.collections
        if hasattr(c, "get_segments")
        for segment in c.get_segments()
    ]


def test_strokes_are_means_of_references_and_medians_of_points():
    rows = ladder(tables(3))
    shown = segments(draw_ladder(rows, WHERE).axes[0])
    wanted = []
    for _, one in rows.groupby(["refinement", "between"], observed=True):
        wanted += [np.mean(one[name]) for name in ("chance", "floor")]
        wanted += [np.median(one[name]) for name in LOOKS]
    assert values(shown) == pytest.approx(values(wanted))


@pytest.mark.parametrize("gone", [("floor", "floor_low", "floor_high"), ("ceiling", "half_iou"), FRAME[2:]])
def test_what_was_not_measured_is_not_in_the_legend(gone):
    rows = ladder(tables(3, refinements=1))
    full = words(draw_ladder(rows, WHERE))
    figure = draw_ladder(rows.assign(**dict.fromkeys([*gone, "normalised"], np.nan)), WHERE)
    figure.savefig(io.BytesIO(), format="svg")
    said = words(figure)
    for name, label in {"floor": "floor (mean)", "floor_low": "floor, 95 %", "ceiling": LOOKS["ceiling"]["label"],
                        "half_iou": LOOKS["half_iou"]["label"], "iou": LOOKS["iou"]["label"]}.items():  # fmt: skip
        assert label in full and (label in said) == (name not in gone)
    assert not any("normalised" in text for text in said)


@pytest.mark.parametrize("which", ["one", "all"])
def test_undefined_ious_are_left_out(which):
    rows = ladder(tables(3, utility=(), refinements=1))
    gone = rows.index == 0 if which == "one" else rows.index >= 0
    rows.loc[gone, list(FRAME)] = np.nan
    figure = draw_ladder(rows, WHERE)
    figure.savefig(io.BytesIO(), format="svg")
    shown = marks(figure.axes[0], color=LOOKS["iou"]["color"], markerfacecolor=LOOKS["iou"]["color"])
    assert values(x for x, _ in shown) == values(rows["iou"]) and len(values(rows["iou"])) == (
        2 if which == "one" else 0
    )
    assert any("identification, 3 pairs" in text for text in words(figure))
