"""The table of pairwise IoU by layer and projection must equal literal statistics, and the lines its table."""

import io
from statistics import fmean, median

import numpy as np
import pytest

from safety_regions.report.figures.margins import MEANS, draw_margins, margins
from safety_regions.report.figures.style import COLOURS
from tests.report import synthetic_tables as synthetic
from tests.report.shown import marks, words

WHERE = "organism / snip / row-0.05"


def tables(k: int, layers: int = 2, utility: tuple[str, ...] = (), framed: bool = True, refinements: int = 1):
    for refinement in synthetic.REFINEMENTS[:refinements]:
        found = synthetic.regions(k + len(utility), layers, refinement, units=60)
        table = synthetic.overlap(found, ks=(2,), utility=utility)
        yield refinement, synthetic.framed(table) if framed else table


def drawn(axis) -> list[float]:
    return [y for _, y in marks(axis, marker="o", color=COLOURS[1])]


def test_rows_are_the_statistics_of_identification_pairs():
    given = list(tables(4, utility=synthetic.UTILITY, refinements=2))
    frame = margins(given)
    assert len(frame) == 2 * (2 + 7)
    for row in frame.to_dict("records"):
        table = dict(given)[row["refinement"]].to_pylist()
        one = [
            r for r in table
            if r["level"] == row["level"] and r["between"] == "identification" and str(r[row["level"]]) == row["place"]
        ]  # fmt: skip
        ious = [r["iou"] for r in one]
        assert (row["pairs"], row["undefined"]) == (len(one), 0) == (6, 0)
        assert row["median"] == pytest.approx(median(ious))
        assert (row["min"], row["max"]) == (min(ious), max(ious))
        assert all(row[name] == pytest.approx(fmean(r[name] for r in one)) for name in MEANS)


def test_layers_are_in_order_of_depth_and_projections_in_that_of_the_block():
    found = {address: m for address, m in reversed(synthetic.regions(2, 11, units=20).items())}
    frame = margins([("raw", synthetic.overlap(found))])
    assert frame.loc[frame["level"] == "layer", "place"].tolist() == [str(i) for i in range(11)]
    assert frame.loc[frame["level"] == "projection", "place"].tolist() == list(synthetic.PROJECTIONS)


def test_undefined_ious_are_counted_and_left_out():
    ((name, table),) = tables(3)
    frame = table.to_pandas()
    first = (frame["combination"] == frame["combination"].iloc[0]) & (frame["level"] == "layer")
    frame.loc[first, "iou"] = np.nan
    rows = margins([(name, synthetic.pa.Table.from_pandas(frame, table.schema, preserve_index=False))])
    layers = rows[rows["level"] == "layer"]
    assert (layers["undefined"] == 1).all() and (layers["pairs"] == 3).all()
    rest = frame[(frame["level"] == "layer") & (frame["layer"] == 0)]["iou"].dropna()
    assert layers["median"].iloc[0] == pytest.approx(np.mean(rest)) and len(rest) == 2


@pytest.mark.slow
@pytest.mark.parametrize("k, refinements", [(1, 2), (2, 2), (16, 1)])
def test_the_lines_are_those_of_the_table(k, refinements):
    frame = margins(tables(k, refinements=refinements))
    figure = draw_margins(frame, WHERE)
    figure.savefig(io.BytesIO(), format="svg")
    said = words(figure)
    assert any(WHERE in text for text in said)
    assert said.count("needs two sets, and units smaller than a layer") == (2 * refinements if k == 1 else 0)
    panels = iter(figure.axes)
    for refinement in synthetic.REFINEMENTS[:refinements]:
        for level in ("layer", "projection"):
            one = frame[(frame["refinement"] == refinement) & (frame["level"] == level)]
            axis = next(panels)
            assert f"{refinement}, by {level}" in axis.get_title()
            assert drawn(axis) == one["median"].tolist()


def test_whole_layers_have_no_margins():
    ((_, table),) = tables(2)
    model = table.filter(synthetic.pa.array([row["level"] == "model" for row in table.to_pylist()]))
    frame = margins([("raw", model)])
    assert frame.empty and list(frame["refinement"].cat.categories) == ["raw"]
    assert words(draw_margins(frame, WHERE)).count("needs two sets, and units smaller than a layer") == 2


@pytest.mark.slow
def test_missing_references_are_not_drawn():
    frame = margins(tables(3, framed=False))
    figure = draw_margins(frame, WHERE)
    figure.savefig(io.BytesIO(), format="svg")
    said = words(figure)
    assert "chance (mean)" in said and not any("floor" in text or "ceiling" in text for text in said)
    assert {"floor (mean)", "ceiling (mean)"} <= set(words(draw_margins(margins(tables(3)), WHERE)))


def test_a_margin_that_is_all_undefined_is_drawn():
    frame = margins(tables(2)).assign(**dict.fromkeys(["median", "min", "max", *MEANS], np.nan), undefined=1)
    figure = draw_margins(frame, WHERE)
    figure.savefig(io.BytesIO(), format="svg")
    by_layer, by_projection = figure.axes
    for axis, level in ((by_layer, "layer"), (by_projection, "projection")):
        assert np.isnan(drawn(axis)).all()
        places = frame.loc[frame["level"] == level, "place"].tolist()
        assert [label.get_text() for label in axis.get_xticklabels()] == places
    assert not any("(mean)" in text for text in words(figure))
