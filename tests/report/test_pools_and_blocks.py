"""Every row of the tables of pools, cores and sample sizes must be a point of the figures."""

import io

import numpy as np
import pyarrow as pa
import pytest

from safety_regions.formats.contracts import SAMPLE_SIZES
from safety_regions.report.figures.convergence import AGAINST, draw_convergence, pool_rows
from safety_regions.report.figures.cores import LOOKS, VALUES, cores, draw_cores
from safety_regions.report.figures.sample_sizes import KINDS, draw_sample_sizes, size_rows
from safety_regions.report.figures.style import COLOURS, GREY, LINES
from tests.report import synthetic_tables as synthetic
from tests.report.shown import marks, values, words

WHERE = "organism / snip / row-0.05"
REFINEMENTS = synthetic.REFINEMENTS[:2]
SHOWN = ["a", "b", "n_a", "n_b", "iou", "chance"]


def pools(k: int, refinements: int = 2, **how):
    return [
        (r, synthetic.pools(synthetic.NAMES[:k], seed=i, **how))
        for i, r in enumerate(REFINEMENTS[:refinements])
    ]


def blocks(k: int, refinements: int = 2, **how):
    return [(r, synthetic.sample_sizes(synthetic.NAMES[:k], **how)) for r in REFINEMENTS[:refinements]]


def literal(tables, columns: list[str]) -> list[list]:
    return [[r, *(row[name] for name in columns)] for r, table in tables for row in table.to_pylist()]


def test_the_rows_are_those_of_the_pool_tables():
    rows = pool_rows(pools(4, orders=3))
    columns = ["order", "k", "against", *SHOWN, "shuffled"]
    assert list(rows) == ["refinement", *columns] and len(rows) == 2 * 3 * 3 * 3
    assert rows.to_numpy().tolist() == literal(pools(4, orders=3), columns)


def test_the_rows_are_those_of_the_tables_of_sample_sizes():
    rows = size_rows(blocks(3))
    columns = ["n", "pair", *SHOWN]
    assert list(rows) == ["refinement", *columns, "normalised"] and len(rows) == 2 * (4 * 3 + 3 * 3 + 4 * 3)
    assert rows.drop(columns="normalised").to_numpy().tolist() == literal(blocks(3), columns)


def test_the_normalised_overlap_at_n_has_floor_and_ceiling_of_the_same_n():
    rows, found = size_rows(blocks(3)), 0
    for row in rows.itertuples():
        same = rows[(rows["refinement"] == row.refinement) & (rows["n"] == row.n)]
        if row.pair != "sets" or row.n == 100:  # a set of 100 prompts has no second block of 100
            assert np.isnan(row.normalised)
            continue
        floor = same[(same["pair"] == "shuffled") & (same["a"] == f"{row.a}~1") & (same["b"] == f"{row.b}~1")]
        ceiling = same[(same["pair"] == "blocks") & same["a"].isin([row.a, row.b])]
        assert (len(floor), len(ceiling)) == (1, 2)
        zero, one = floor["iou"].item(), ceiling["iou"].mean()
        assert row.normalised == pytest.approx((row.iou - zero) / (one - zero))
        found += 1
    assert found == 2 * 3 * 3


def test_without_shuffles_there_is_no_normalised_overlap():
    rows = size_rows(blocks(3, shuffled=False))
    assert rows["normalised"].isna().all()
    figure = draw_sample_sizes(rows, WHERE)
    assert not any("normalised" in text or "shuffled" in text for text in words(figure))
    assert any("normalised" in text for text in words(draw_sample_sizes(size_rows(blocks(3)), WHERE)))


def test_a_ceiling_below_the_floor_normalises_nothing():
    rows = synthetic.sample_sizes(synthetic.NAMES[:2]).to_pylist()
    low = [row | ({"iou": 0.05} if row["pair"] == "blocks" else {}) for row in rows]
    table = pa.Table.from_pylist(low, schema=SAMPLE_SIZES.schema)
    assert size_rows([("raw", table)])["normalised"].isna().all()


@pytest.mark.slow
@pytest.mark.parametrize("k, refinements", [(1, 1), (2, 2), (16, 1)])
def test_each_order_of_the_pools_is_a_line(k, refinements):
    rows = pool_rows(pools(k, refinements, orders=3))
    figure = draw_convergence(rows, WHERE)
    figure.savefig(io.BytesIO(), format="svg")
    assert words(figure).count("all pools are empty") == (3 if k == 1 else 0)
    panels = iter(figure.axes)
    for refinement in REFINEMENTS[:refinements]:
        for against in AGAINST:
            one, axis = rows[(rows["refinement"] == refinement) & (rows["against"] == against)], next(panels)
            assert axis.get_title() == f"{refinement}\n{AGAINST[against]}"
            assert marks(axis, color=GREY, marker=".") == sorted(one[["k", "iou"]].to_numpy(float).tolist())
            groups = {
                n: [iou for m, iou in zip(one["k"], one["iou"], strict=True) if m == n] for n in set(one["k"])
            }
            middle = [[float(n), float(np.median(groups[n]))] for n in sorted(groups)]
            assert np.allclose(marks(axis, color=COLOURS[1], marker="o"), middle)


@pytest.mark.parametrize("k, refinements", [(1, 1), (2, 2), (16, 1)])
def test_each_pair_of_blocks_is_a_point(k, refinements):
    rows = size_rows(blocks(k, refinements))
    figure = draw_sample_sizes(rows, WHERE)
    figure.savefig(io.BytesIO(), format="svg")
    assert "all regions are empty" not in words(figure)
    for refinement, axis in zip(REFINEMENTS[:refinements], figure.axes, strict=True):
        assert axis.get_title() == refinement
        for kind, look in KINDS.items():
            one = rows[(rows["refinement"] == refinement) & (rows["pair"] == kind)]
            points = marks(axis, marker=look["marker"], markersize=2.5)
            assert values(y for _, y in points) == values(one["iou"])
            assert np.allclose(sorted(x for x, _ in points), sorted(one["n"] * look["shift"]))
            middle = [y for _, y in marks(axis, marker=look["marker"], markersize=5)]
            wanted = [np.median(one.loc[one["n"] == n, "iou"]) for n in sorted(set(one["n"]))]
            assert np.allclose(middle, wanted)
        one = rows[rows["refinement"] == refinement].dropna(subset="normalised")
        middle = [y for _, y in marks(axis, marker="D", markersize=5)]
        assert np.allclose(middle, one.groupby("n")["normalised"].median())


@pytest.mark.parametrize("which", ["one", "all"])
def test_undefined_ious_are_left_out(which):
    for frame, draw, say in (
        (pool_rows(pools(3)), draw_convergence, "all pools are empty"),
        (size_rows(blocks(3)), draw_sample_sizes, "all regions are empty"),
    ):
        gone = frame.index == 0 if which == "one" else frame["refinement"] == REFINEMENTS[0]
        frame.loc[gone, ["iou", "chance"]] = np.nan
        figure = draw(frame, WHERE)
        panels = len(figure.axes) // 2
        assert words(figure).count(say) == (0 if which == "one" else panels)
        assert any("chance (median)" in text for text in words(figure))


def test_chance_is_the_median_of_the_rows():
    rows = pool_rows(pools(4, 1))
    rows["chance"] = np.linspace(0.01, 0.2, len(rows))
    axis = draw_convergence(rows, WHERE).axes[0]
    one = rows[rows["against"] == "next"]
    wanted = [[k, np.median(one.loc[one["k"] == k, "chance"])] for k in (1, 2, 3)]
    assert np.allclose(marks(axis, color=LINES["chance"]["color"], marker="_"), wanted)


@pytest.mark.parametrize("shuffled", [True, False])
def test_pools_of_shuffled_sets_are_a_line_if_they_were_measured(shuffled):
    rows = pool_rows(pools(4, 1, orders=3, shuffled=shuffled))
    figure = draw_convergence(rows, WHERE)
    one = rows[rows["against"] == "next"].dropna(subset="shuffled")
    wanted = [[k, np.median(one.loc[one["k"] == k, "shuffled"])] for k in (1, 2, 3) if shuffled]
    assert marks(figure.axes[0], color=LINES["floor"]["color"], marker="x") == wanted
    assert any("shuffled sets" in text for text in words(figure)) == shuffled


def test_blocks_that_no_set_has_two_of_are_not_drawn():
    rows = size_rows(blocks(2, 1, blocks=1))
    figure = draw_sample_sizes(rows, WHERE)
    figure.savefig(io.BytesIO(), format="svg")
    assert set(rows["pair"]) == {"sets", "shuffled"} and not marks(figure.axes[0], marker="s")
    assert not marks(figure.axes[0], marker="D")


@pytest.mark.parametrize("shuffled", [True, False])
def test_cores_are_averaged_over_draws_and_each_is_a_point(shuffled):
    tables = [(refinement, synthetic.cores(shuffled=shuffled)) for refinement in REFINEMENTS]
    rows = cores(tables)
    kinds = [kind for kind in LOOKS if shuffled or kind != "shuffled"]
    assert [tuple(key) for key in rows[["refinement", "kind", "k"]].to_numpy()] == [
        (refinement, kind, k) for refinement in REFINEMENTS for kind in kinds for k in (1, 2, 3, 4)
    ]
    frame = tables[0][1].to_pandas()
    for row in rows[rows["refinement"] == REFINEMENTS[0]].to_dict("records"):
        same = frame[(frame["kind"].astype(str) == row["kind"]) & (frame["k"] == row["k"])]
        assert row["draws"] == len(same) == (1 if row["kind"] == "sets" else 2)
        assert row["intersection"] == pytest.approx(same["intersection"].mean())
        assert row["intersection_low"] == pytest.approx(same["intersection_low"].min())
        assert row["intersection_high"] == pytest.approx(same["intersection_high"].max())
        first = frame[(frame["kind"].astype(str) == row["kind"]) & (frame["k"] == 1)]
        assert row["size"] == pytest.approx(first["intersection"].mean())
    figure = draw_cores(rows, WHERE)
    figure.savefig(io.BytesIO(), format="svg")
    panels = iter(figure.axes)
    for refinement in REFINEMENTS:
        for value in VALUES:
            axis = next(panels)
            for kind in kinds:
                one = rows[(rows["refinement"] == refinement) & (rows["kind"] == kind)]
                by = one["size"] if value in ("intersection", "union") else 1
                wanted = [[k, y] for k, y in zip(one["k"], one[value] / by, strict=True) if not np.isnan(y)]
                assert np.allclose(
                    marks(axis, color=LOOKS[kind]["color"], marker=LOOKS[kind]["marker"]), wanted
                )
    assert ("shuffled statistics" in words(figure)) is shuffled
