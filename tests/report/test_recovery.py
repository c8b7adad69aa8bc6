"""Recovery pages and figures must show medians over sets, bars from the table, and sentences that follow from it."""

import io
import math
from statistics import fmean, median

import pandas as pd
import pytest

from safety_regions.report.elsewhere import areas_by_truth, areas_elsewhere
from safety_regions.report.figures.recovery import (
    CHANCES,
    KEYS,
    MEASURED,
    METRICS,
    POOLED,
    draw_recovery,
    recovery_rows,
    shown_metrics,
)
from safety_regions.report.pages.recovery import (
    MARGIN,
    SHOWN,
    beyond_baselines,
    kind_words,
    plant_words,
    recovery_page,
    recovery_table,
)
from tests.report import synthetic_tables as synthetic
from tests.report.shown import cells_of, values, words

NAMES = synthetic.NAMES[:3]
AUROCS = {"magnitude": 0.55, "snip": 0.8, "lora": None, "wanda": 0.52, "random": 0.5}
DATA_FREE = ["magnitude", "random"]
CARDS = {
    "small": {"family": "llama", "plant": {"weights": 0.05, "norm": "matched"}, "place": "draw 0", "group": "small",
              "seed": 0},
    "large": {"family": "gemma2", "plant": {"layers": [1, 2]}, "place": "layers 1, 2", "group": "large", "seed": 3},
}  # fmt: skip
OWN = "organism"


@pytest.mark.parametrize("pooled", [False, True])
def test_rows_are_the_statistics_over_sets_of_the_own_truth(pooled):
    table = synthetic.recovery(AUROCS, NAMES, truths={"organism": 0.0, "elsewhere": -0.1}, pooled=pooled)
    rows = recovery_rows(table, DATA_FREE, OWN)
    assert list(dict.fromkeys(rows["method"])) == ["snip", "lora", "wanda", "magnitude", "random"]
    assert rows["data_free"].tolist() == [False] * 6 + [True] * 4 and (rows["sets"] == 3).all()
    for row in rows.to_dict("records"):
        one = [r for r in table.to_pylist() if r["truth"] == OWN and all(r[key] == row[key] for key in KEYS)]
        for name in MEASURED:
            known = [r[name] for r in one if r[name] is not None]
            found = [row[f"{name}{end}"] for end in ("", "_min", "_max")]
            if known:
                assert found == pytest.approx([median(known), min(known), max(known)])
            else:
                assert pd.isna(found).all() and ("auroc" in name or "average_precision" in name)
        assert row["selected"] == pytest.approx(fmean(r["n_selected"] / r["n_weights"] for r in one))
        assert [row[name] for name in ("prevalence", "chance")] == pytest.approx([0.1, 0.034])
        by_chance = [math.nan, math.nan] if row["method"] == "lora" else [0.51, 0.11]
        found = [row[name] for name in ("chance_auroc", "chance_average_precision")]
        assert found == pytest.approx(by_chance, nan_ok=True)


def test_data_free_methods_are_those_named():
    rows = recovery_rows(synthetic.recovery({"size": 0.5, "snip": 0.6}, NAMES), ["size"], OWN)
    assert rows["data_free"].tolist() == [False, False, True, True] and rows["method"].iloc[-1] == "size"


def widths(axis) -> list[float]:
    return values(bar.get_width() for bar in axis.patches)


@pytest.mark.slow
@pytest.mark.parametrize("k, pooled", [(1, False), (2, True), (16, False)])
def test_the_bars_are_those_of_the_table(k, pooled):
    rows = recovery_rows(synthetic.recovery(AUROCS, synthetic.NAMES[:k], pooled=pooled), DATA_FREE, OWN)
    figure = draw_recovery(rows, "small")
    assert shown_metrics(rows) == (METRICS[:3] + POOLED if pooled else METRICS)
    if k == 1:
        figure.savefig(io.BytesIO(), format="svg")
    for metric, axis in zip(shown_metrics(rows), figure.axes, strict=True):
        shown = rows if metric.of_regions else rows.drop_duplicates("method")
        assert axis.get_title() == metric.title
        assert widths(axis) == values(shown[metric.name])
        undefined = [text.get_text() for text in axis.texts].count("undefined")
        assert undefined == shown[metric.name].isna().sum() == (0 if metric.of_regions else 1)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == [
        f"{r.method}{' (data-free)' * r.data_free}, {r.selection}, {r.refinement}" for r in rows.itertuples()
    ]
    assert any("small" in text for text in words(figure))


def table_of(aurocs: dict = AUROCS) -> pd.DataFrame:
    tables = {name: synthetic.recovery(aurocs, NAMES, truths={name: 0.0}) for name in CARDS}
    rows = {name: recovery_rows(table, DATA_FREE, name) for name, table in tables.items()}
    areas = {name: areas_by_truth(table) for name, table in tables.items()}
    return recovery_table(rows, CARDS, areas_elsewhere(areas, CARDS))


def test_the_table_has_the_rows_of_every_organism():
    table, one = table_of(), recovery_rows(synthetic.recovery(AUROCS, NAMES), DATA_FREE, OWN)
    assert table["organism"].tolist() == ["small"] * 10 + ["large"] * 10
    assert table["family"].tolist() == ["llama"] * 10 + ["gemma2"] * 10
    shown = [*KEYS, "granularity", "data_free", "reads_base", "sets", *MEASURED, *CHANCES]
    pd.testing.assert_frame_equal(table.iloc[10:][shown].reset_index(drop=True), one[shown])


@pytest.mark.parametrize("plant, said", [
    ({"layers": [1, 2]}, "whole decoder blocks 1, 2"),
    ({"neurons": 0.05, "norm": "free"}, "5 % of the feed-forward neurons of every block"),
    ({"weights": 0.01, "norm": "matched"}, "1 % of the weights of every projection, norms kept as before alignment"),
    ({"lora": {"rank": 4, "projections": ["q", "v"]}}, "rank 4 update of q, v in every block"),
])  # fmt: skip
def test_a_plant_in_words(plant, said):
    assert plant_words(plant) == said


@pytest.mark.parametrize("plant, said", [
    ({"layers": [2]}, "1 whole decoder block, one place per organism"),
    ({"layers": [1, 2]}, "2 whole decoder blocks, one place per organism"),
    ({"weights": 0.01, "norm": "matched"}, "1 % of the weights of every projection, norms kept as before alignment"),
    ({"lora": {"rank": 4, "projections": ["q", "v"]}}, "rank 4 update of 2 projections in every block"),
])  # fmt: skip
def test_plants_of_a_group_in_words(plant, said):
    assert kind_words(plant) == said


def exact(
    aurocs: dict[str, tuple[float | None, bool]],
    by_chance: float | None = 0.5,
    units: str = "weights",
    base: tuple[str, ...] = (),
) -> pd.DataFrame:
    """Return rows with these AUROCs of the units; the flag marks data-free methods, ``base`` those that read a base."""
    names = ("auroc", "pooled_auroc")[:: 1 if units == "weights" else -1]
    rows = [
        {"method": m, "data_free": free, "reads_base": m in base, "units": units, names[0]: area, names[1]: 0.99,
         "chance_auroc": by_chance, "pooled_chance_auroc": by_chance}
        for m, (area, free) in aurocs.items()
    ]  # fmt: skip
    areas = [name for name in rows[0] if "auroc" in name]
    return pd.DataFrame(rows).astype(dict.fromkeys(areas, float))


@pytest.mark.parametrize("units", ["weights", "neurons"])
def test_methods_are_set_beside_the_best_baseline(units):
    said = beyond_baselines(exact({
        "far": (0.9, False), "near": (0.62, False), "less": (0.4, False), "adapter": (None, False),
        "magnitude": (0.6, True), "random": (0.5, True),
    }, units=units))  # fmt: skip
    assert said == (
        f"Methods whose scores of {units} exceed the best data-free baseline that reads no more than they do "
        "(magnitude, AUROC 0.600) and their own AUROC by chance by more than "
        f"{MARGIN:g}: far (0.900); methods that do not: near (0.620), less (0.400); methods without an AUROC: adapter."
    )


def test_the_size_of_the_weight_change_is_a_baseline_of_methods_that_know_it():
    """It finds every plant: no method that sees the aligned model alone could exceed it."""
    scores = {"sees": (0.8, False), "knows": (0.9, False), "delta": (1.0, True), "magnitude": (0.6, True)}
    said = beyond_baselines(exact(scores, base=("knows", "delta")))
    assert "than they do (magnitude, AUROC 0.600, or delta, AUROC 1.000) and" in said
    assert said.endswith(": sees (0.800); methods that do not: knows (0.900).")


def test_a_method_must_exceed_its_own_chance_too():
    said = beyond_baselines(exact({"far": (0.9, False), "random": (0.5, True)}, by_chance=0.87))
    assert "more than 0.05: none; methods that do not: far (0.900)." in said


def test_of_planted_layers_nothing_is_claimed():
    said = beyond_baselines(exact({"far": (0.9, False), "random": (0.5, True)}, units="layers"))
    assert said.startswith("Whole layers are planted: too few units") and "far" not in said


def test_no_method_beyond_the_baselines_is_said_plainly():
    said = beyond_baselines(exact({"near": (0.5, False), "random": (0.5, True)}))
    assert "more than 0.05: none; methods that do not: near (0.500)." in said


@pytest.mark.parametrize("baseline", [{}, {"random": (None, True)}])
def test_without_a_baseline_nothing_is_claimed(baseline):
    said = beyond_baselines(exact({"far": (0.9, False), **baseline}))
    assert said.startswith("No data-free baseline") and "far" not in said


def test_the_page_has_a_table_for_each_organism():
    table = table_of()
    page = recovery_page(table)
    rows = [row for row in cells_of(page) if row]
    known = [name for name in SHOWN if table[name].notna().any()]
    assert known == [name for name in SHOWN if "pooled" not in name and name != "auroc_within"]
    assert len(rows) == len(table) and page.count("<table>") == 2
    for shown, row in zip(rows, table.to_dict("records"), strict=True):
        assert shown[:3] == [
            row["method"] + " (data-free)" * row["data_free"],
            row["selection"],
            row["refinement"],
        ]
        assert shown[3:] == ["–" if pd.isna(row[name]) else f"{row[name]:.3f}" for name in known]
    assert "small: llama, 5 % of the weights of every projection, norms kept" in page
    assert "large: gemma2, whole decoder blocks 1, 2" in page and "(training seed 3)" in page
    said = "exceed the best data-free baseline that reads no more than they do (magnitude"
    assert page.count(said) == 1, "nothing is said of one layer"
    assert page.count("No organism that differs only in the place of the plant.") == 2
