"""The tables of figures must agree with the overlap tables of synthetic regions, and drawing must never fail."""

import io
from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import binomtest

from safety_regions.errors import StudyError
from safety_regions.report.combinations import by_count, largest_possible, model_rows, pairs
from safety_regions.report.figures.kway import draw_kway, linear_below
from safety_regions.report.figures.matrices import SPAN, colour_scale, draw_matrices, matrix
from safety_regions.report.figures.refusals import draw_refusals, numbered, rate, refusal_rates, samples_used
from safety_regions.report.figures.sizes import draw_sizes, sizes_by_address, total_percent
from safety_regions.report.figures.style import COLOURS, GREY
from safety_regions.report.files import save_tsv
from tests.report import synthetic_tables as synthetic
from tests.report.shown import words

WHERE = "organism / snip / row-0.05"


def rows_of(
    k: int, refinements: int = 2, layers: int = 2, units: int = 120
) -> tuple[pd.DataFrame, list[str]]:
    """Return model-level rows of synthetic regions, and the names of the sets."""
    names = sorted(synthetic.NAMES[:k])
    tables = (
        (name, synthetic.overlap(synthetic.regions(k, layers, name, units)))
        for name in synthetic.REFINEMENTS[:refinements]
    )
    return model_rows(tables, names), names


@pytest.mark.parametrize("k", [2, 3, 5])
def test_pairs_are_the_ious_of_the_masks(k):
    rows, names = rows_of(k, refinements=3)
    table = pairs(rows, names)
    assert len(table) == 3 * k * (k - 1) / 2
    for refinement in synthetic.REFINEMENTS[:3]:
        masks = np.concatenate(list(synthetic.regions(k, 2, refinement, 120).values()), axis=1)
        values = matrix(table[table["refinement"] == refinement])
        assert np.isnan(np.diag(values)).all()
        for a, b in combinations(range(k), 2):
            expected = (masks[a] & masks[b]).sum() / (masks[a] | masks[b]).sum()
            assert values[a, b] == values[b, a] == expected


def test_only_the_named_sets_count():
    rows, names = rows_of(4)
    tables = [(r, synthetic.overlap(synthetic.regions(4, 2, r, 120))) for r in synthetic.REFINEMENTS[:2]]
    fewer = model_rows(tables, names[:3])
    assert len(fewer) == 2 * 4 < len(rows)
    pd.testing.assert_frame_equal(
        pairs(fewer, names[:3])[["iou"]],
        pairs(rows, names).query(f"a in {names[:3]} and b in {names[:3]}")[["iou"]].reset_index(drop=True),
    )


def test_a_missing_pair_is_refused():
    rows, names = rows_of(3)
    with pytest.raises(StudyError, match="'raw': found 2 pairs"):
        pairs(rows.iloc[1:], names)
    with pytest.raises(StudyError, match=r"3 pairs.*each of 6"):
        pairs(rows, [*names, "another"])


def test_counts_are_the_statistics_of_the_subsets():
    rows, _ = rows_of(5)
    table = by_count(rows).set_index(["refinement", "k"])
    assert table.loc["raw", "subsets"].tolist() == [10, 10, 5, 1]
    for (refinement, k), one in table.iterrows():
        values = rows[(rows["refinement"] == refinement) & (rows["k"] == k)]
        found = one[["min", "q25", "median", "q75", "max"]].to_numpy(float)
        assert np.allclose(found, np.quantile(values["iou"], [0, 0.25, 0.5, 0.75, 1]), rtol=1e-12)
        assert one["chance"] == pytest.approx(np.mean(values["chance"]))
        assert one["undefined"] == 0 and pd.isna(one["floor"]) and pd.isna(one["ceiling"])


def test_undefined_ious_are_counted_and_left_out():
    rows, _ = rows_of(3, refinements=1)
    rows.loc[rows["combination"] == rows["combination"].iloc[0], "iou"] = np.nan
    rest = rows[rows["k"] == 2]["iou"].dropna()
    one = by_count(rows).iloc[0]
    assert (one["subsets"], one["undefined"]) == (3, 1)
    assert one["median"] == pytest.approx(rest.mean()) and one["min"] == rest.min()


@pytest.mark.slow
@pytest.mark.parametrize("k, refinements", [(1, 1), (1, 3), (2, 1), (3, 4), (6, 2)])
def test_overlap_figures_of_few_and_many_sets(k, refinements):
    rows, names = rows_of(k, refinements, layers=1, units=60)
    for figure in (draw_matrices(pairs(rows, names), WHERE), draw_kway(by_count(rows), WHERE)):
        said = words(figure)
        assert any(WHERE in text for text in said)
        assert ("needs two sets" in said) == (k == 1)
        figure.savefig(io.BytesIO(), format="svg")
    shown = words(draw_matrices(pairs(rows, names), WHERE))
    assert all(any(text.startswith(r) for text in shown) for r in synthetic.REFINEMENTS[:refinements])


@pytest.mark.parametrize("undefined", ["one", "all"])
def test_overlap_figures_of_undefined_ious(undefined):
    rows, names = rows_of(3, refinements=2)
    gone = rows.index == 0 if undefined == "one" else rows.index >= 0
    rows.loc[gone, ["iou", "chance"]] = np.nan
    figure = draw_matrices(pairs(rows, names), WHERE)
    assert words(figure).count("–") == (2 if undefined == "one" else 12)
    draw_kway(by_count(rows), WHERE).savefig(io.BytesIO(), format="svg")


def test_floor_and_ceiling_are_shown_once_known():
    rows, names = rows_of(3, refinements=1)
    before = words(draw_matrices(pairs(rows, names), WHERE)) + words(draw_kway(by_count(rows), WHERE))
    rows["floor"], rows["ceiling"] = 0.111, 0.777
    after = words(draw_matrices(pairs(rows, names), WHERE)) + words(draw_kway(by_count(rows), WHERE))
    assert not any("floor" in text or "ceiling" in text for text in before)
    assert any("floor 0.111, ceiling 0.777" in text for text in after)
    assert {"floor (mean)", "ceiling (mean)"} <= set(after)


def test_the_colours_span_the_ious_of_different_sets():
    scale = colour_scale(pd.Series([0.1, 0.4, np.nan]))
    assert (scale.vmin, scale.vmax) == (0.1, 0.4)
    narrow = colour_scale(pd.Series([0.3, 0.3001]))
    assert narrow.vmax - narrow.vmin == pytest.approx(SPAN)
    assert colour_scale(pd.Series([0.0, 0.001])).vmin == 0


def test_the_axis_is_logarithmic_down_to_the_smallest_positive_iou():
    table = pd.DataFrame({"min": [0.0, 0.02], "median": [0.003, 0.5]})
    assert linear_below(table) == pytest.approx(1e-3)
    assert linear_below(table * 0) == 0.1
    assert linear_below(pd.DataFrame({"min": [1e-12], "median": [1e-12]})) == pytest.approx(1e-6)


def sizes_of(k: int = 3, layers: int = 2) -> pd.DataFrame:
    regions = {r: synthetic.regions(k, layers, r, 120) for r in synthetic.REFINEMENTS[:2]}
    backwards = {r: dict(reversed(found.items())) for r, found in regions.items()}
    tables = ((r, synthetic.sizes(found, r)) for r, found in backwards.items())
    return sizes_by_address(tables, synthetic.NAMES[:k])


def test_sizes_are_the_means_of_the_masks():
    table = sizes_of()
    for row in table.itertuples():
        masks = synthetic.regions(3, 2, row.refinement, 120)[row.layer, row.projection]
        assert (row.n_units, row.n_sets) == (120, 3)
        assert row.mean_selected == pytest.approx(masks.sum() / 3)
        assert row.percent == pytest.approx(100 * masks.mean())
    raw = table[table["refinement"] == "raw"]
    assert raw["projection"].tolist()[:7] == list(synthetic.PROJECTIONS)
    assert total_percent(raw) == pytest.approx(5.0)


def test_sizes_of_unequal_addresses_are_weighted_by_their_units():
    table = pd.DataFrame({"mean_selected": [10.0, 0.0], "n_units": [100, 900]})
    assert total_percent(table) == pytest.approx(1.0)


def test_a_set_without_sizes_is_refused():
    table = synthetic.sizes(synthetic.regions(2, 1, units=60), "raw")
    with pytest.raises(StudyError, match="no another"):
        sizes_by_address([("raw", table)], [*synthetic.NAMES[:2], "another"])


@pytest.mark.parametrize("layers", [[None], [0, 1, 2]])
def test_sizes_of_whole_layers(layers):
    frame = (
        synthetic.sizes(synthetic.regions(2, 1, units=60), "raw")
        .to_pandas()
        .groupby("name")
        .head(len(layers))
    )
    frame = frame.assign(
        layer=pd.array(layers * 2, "Int16"), projection=None, n_units=10, n_selected=[4] * len(frame)
    )
    table = sizes_by_address([("raw", synthetic.pa.Table.from_pandas(frame))], synthetic.NAMES[:2])
    assert len(table) == len(layers) and (table["percent"] == 40).all()
    said = words(draw_sizes(table, WHERE))
    assert {"40.0", "all"} <= set(said) and any("40.00 %" in text for text in said)


def test_sizes_of_adapters_keep_both_factors_apart():
    frame = synthetic.sizes(synthetic.regions(2, 1, units=60), "raw").to_pandas()
    frame = frame[frame["projection"].isin(["q", "k"])].assign(n_units=10, n_selected=[4, 4, 6, 6])
    frame = frame.assign(projection=["q.B", "q.B", "q.A", "q.A"])
    table = sizes_by_address([("raw", synthetic.pa.Table.from_pandas(frame))], synthetic.NAMES[:2])
    assert table[["projection", "percent"]].to_numpy().tolist() == [["q.A", 60], ["q.B", 40]]
    assert {"q.A", "q.B", "60.0", "40.0"} <= set(words(draw_sizes(table, WHERE)))


def rates_of(evaluate: int = 12) -> pd.DataFrame:
    roles = {"fraud": "identification", "hacking": "identification", "everyday": "utility"}
    rates = {"fraud": 0.9, "hacking": 1.0, "everyday": 0.0}
    tables = (
        (b, synthetic.responses(d, rates[d], evaluate=evaluate))
        for b in ("llama", "gemma") for d in ("everyday", "hacking", "fraud")
    )  # fmt: skip
    scored = [
        {"backbone": b, "name": d, "label": method, "samples_used": 30 + len(method)}
        for b in ("llama", "gemma") for d in roles for method in ("snip", "wanda")
    ]  # fmt: skip
    return refusal_rates(tables, roles, samples_used(scored))


def test_refusal_rates_are_counted_per_split():
    table = rates_of()
    assert len(table) == 2 * 3 * 2 and set(table["n"]) == {40, 12}
    assert list(dict.fromkeys(table["backbone"])) == ["llama", "gemma"]
    assert list(dict.fromkeys(table["dataset"])) == ["fraud", "hacking", "everyday"]
    one = table.set_index(["backbone", "dataset", "split"])
    assert one.loc[("gemma", "hacking", "evaluate"), "refusal_rate"] == 1
    assert one.loc[("gemma", "everyday", "identify"), "n_refused"] == 0
    refused = synthetic.responses("fraud", 0.9).to_pandas().groupby("split", observed=True)["refused"].sum()
    assert one.loc[("llama", "fraud", "identify"), "n_refused"] == refused["identify"]
    used = one[["used_snip", "used_wanda"]]
    assert (used.xs("identify", level="split") == [34, 35]).all(axis=None)
    assert used.xs("evaluate", level="split").isna().all(axis=None)


def test_responses_that_differ_are_counted_without_their_texts():
    table = synthetic.responses("fraud", 1.0, identify=6, evaluate=2)
    texts = ["no", "never", "no", "no", "never", "sorry", "no", "no"]
    table = table.set_column(table.column_names.index("response"), "response", synthetic.pa.array(texts))
    roles = {"fraud": "identification"}
    found = refusal_rates([("llama", table)], roles, {})
    hidden = refusal_rates([("llama", numbered(table))], roles, {})
    assert found["n_distinct"].tolist() == [3, 1] and hidden.equals(found)
    assert not {"no", "never", "sorry"} & set(map(str, numbered(table)["response"].to_pylist()))


@pytest.mark.parametrize("hits, n", [(0, 5), (5, 5), (3, 7), (31, 125)])
def test_the_interval_is_wilsons(hits, n):
    found = rate(pd.Series([True] * hits + [False] * (n - hits)))
    wilson = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((wilson.low, wilson.high), abs=1e-9)


@pytest.mark.parametrize("evaluate", [0, 12])
def test_the_refusal_figure_gives_every_n(evaluate):
    said = words(draw_refusals(rates_of(evaluate=evaluate)))
    assert {"llama", "gemma", "identification sets", "utility sets"} <= set(said)
    assert said.count("40") >= 6 and ("12" in said) == (evaluate > 0)


def test_responses_of_the_source_are_not_called_the_backbones():
    rates = rates_of()
    rates.loc[rates["backbone"] == "gemma", "origin"] = "dataset"
    titles = [axis.get_title() for axis in draw_refusals(rates).axes]
    assert titles[0] == "llama" and "from the dataset" in titles[1]


@pytest.mark.parametrize("colour", [*COLOURS, GREY])
def test_lines_and_markers_have_the_contrast_that_graphics_need(colour):
    """WCAG 2.2, 1.4.11: graphics have a contrast of at least 3 to what is beside them, here white."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    )
    assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 3


def test_a_saved_table_reads_back_in_full(tmp_path):
    rows, names = rows_of(3)
    rows.loc[rows.index[0], "iou"] = np.nan
    for table in (pairs(rows, names), by_count(rows), sizes_of(), rates_of()):
        save_tsv(tmp_path / "a.tsv", table)
        back = pd.read_csv(tmp_path / "a.tsv", sep="\t")
        texts = {c: str for c in table.columns if isinstance(table[c].dtype, pd.CategoricalDtype)}
        pd.testing.assert_frame_equal(back, table.astype(texts), check_dtype=False, check_exact=True)


def test_regions_in_other_projections_can_have_no_overlap():
    """Ten weights each: in the same two projections, in halves of them, and in two others."""
    sizes = {
        "a & b": {"q": (5, 5), "k": (5, 5)},
        "a & c": {"q": (5, 10), "k": (0, 5)},
        "a & d": {"q": (0, 5), "k": (0, 5), "up": (0, 10)},
    }
    rows = [
        {"combination": pair, "level": "projection", "smallest": small, "largest": large}
        for pair, parts in sizes.items()
        for small, large in parts.values()
    ]
    rows += [{"combination": pair, "level": "model", "smallest": 10, "largest": 10} for pair in sizes]
    assert largest_possible(pa.Table.from_pylist(rows)).to_dict() == {
        "a & b": 1.0,
        "a & c": 1 / 3,
        "a & d": 0.0,
    }
