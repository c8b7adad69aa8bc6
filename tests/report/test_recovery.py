"""Recovery pages and figures must show medians over sets, bars from the table, and sentences that follow from it."""

import io
import math
from statistics import fmean, median

import pandas as pd
import pytest

from safety_regions.report.figures.recovery import (
    CHANCES,
    KEYS,
    MEASURED,
    METRICS,
    draw_recovery,
    recovery_rows,
)
from safety_regions.report.pages.recovery import (
    MARGIN,
    SHOWN,
    beyond_baselines,
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
    "small": {"family": "llama", "plant": {"weights": 0.05, "norm": "matched"}},
    "large": {"family": "gemma2", "plant": {"layers": [1, 2]}},
}


def test_rows_are_the_statistics_over_sets():
    table = synthetic.recovery(AUROCS, NAMES)
    rows = recovery_rows(table, DATA_FREE)
    assert list(dict.fromkeys(rows["method"])) == ["snip", "lora", "wanda", "magnitude", "random"]
    assert rows["data_free"].tolist() == [False] * 6 + [True] * 4 and (rows["sets"] == 3).all()
    for row in rows.to_dict("records"):
        one = [r for r in table.to_pylist() if all(r[key] == row[key] for key in KEYS)]
        for name in MEASURED:
            known = [r[name] for r in one if r[name] is not None]
            found = [row[f"{name}{end}"] for end in ("", "_min", "_max")]
            if known:
                assert found == pytest.approx([median(known), min(known), max(known)])
            else:
                assert pd.isna(found).all() and name in ("auroc", "auroc_within", "average_precision")
        assert row["selected"] == pytest.approx(fmean(r["n_selected"] / r["n_weights"] for r in one))
        assert [row[name] for name in ("prevalence", "chance")] == pytest.approx([0.1, 0.034])
        by_chance = [math.nan, math.nan] if row["method"] == "lora" else [0.51, 0.11]
        found = [row[name] for name in ("chance_auroc", "chance_average_precision")]
        assert found == pytest.approx(by_chance, nan_ok=True)


def test_data_free_methods_are_those_named():
    rows = recovery_rows(synthetic.recovery({"size": 0.5, "snip": 0.6}, NAMES), ["size"])
    assert rows["data_free"].tolist() == [False, False, True, True] and rows["method"].iloc[-1] == "size"


def widths(axis) -> list[float]:
    return values(bar.get_width() for bar in axis.patches)


@pytest.mark.parametrize("k", [1, 2, 16])
def test_the_bars_are_those_of_the_table(k):
    rows = recovery_rows(synthetic.recovery(AUROCS, synthetic.NAMES[:k]), DATA_FREE)
    figure = draw_recovery(rows, "small")
    if k == 1:
        figure.savefig(io.BytesIO(), format="svg")
    for metric, axis in zip(METRICS, figure.axes, strict=True):
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
    rows = {name: recovery_rows(synthetic.recovery(aurocs, NAMES), DATA_FREE) for name in CARDS}
    return recovery_table(rows, CARDS)


def test_the_table_has_the_rows_of_every_organism():
    table, one = table_of(), recovery_rows(synthetic.recovery(AUROCS, NAMES), DATA_FREE)
    assert table["organism"].tolist() == ["small"] * 10 + ["large"] * 10
    assert table["family"].tolist() == ["llama"] * 10 + ["gemma2"] * 10
    shown = [*KEYS, "granularity", "data_free", "sets", *MEASURED, *CHANCES]
    pd.testing.assert_frame_equal(table.iloc[10:][shown].reset_index(drop=True), one[shown])


@pytest.mark.parametrize("plant, said", [
    ({"layers": [1, 2]}, "whole decoder blocks 1, 2"),
    ({"neurons": 0.05, "norm": "free"}, "5 % of the feed-forward neurons of every block"),
    ({"weights": 0.01, "norm": "matched"}, "1 % of the weights of every projection, norms kept as before alignment"),
    ({"lora": {"rank": 4, "projections": ["q", "v"]}}, "rank 4 update of q, v in every block"),
])  # fmt: skip
def test_a_plant_in_words(plant, said):
    assert plant_words(plant) == said


def exact(aurocs: dict[str, tuple[float | None, bool]], by_chance: float | None = 0.5) -> pd.DataFrame:
    """Return rows with these AUROCs; the flag marks data-free methods."""
    rows = [
        {"method": m, "data_free": free, "auroc": area, "chance_auroc": by_chance}
        for m, (area, free) in aurocs.items()
    ]
    return pd.DataFrame(rows).astype({"auroc": float, "chance_auroc": float})


def test_methods_are_set_beside_the_best_baseline():
    said = beyond_baselines(exact({
        "far": (0.9, False), "near": (0.62, False), "less": (0.4, False), "adapter": (None, False),
        "magnitude": (0.6, True), "random": (0.5, True),
    }))  # fmt: skip
    assert said == (
        "Methods that exceed the best data-free baseline (magnitude, AUROC 0.600) and their own AUROC by "
        "chance by more than "
        f"{MARGIN:g}: far (0.900); methods that do not: near (0.620), less (0.400); methods without an AUROC: adapter."
    )


def test_a_method_must_exceed_its_own_chance_too():
    said = beyond_baselines(exact({"far": (0.9, False), "random": (0.5, True)}, by_chance=0.87))
    assert "more than 0.05: none; methods that do not: far (0.900)." in said


def test_of_planted_layers_nothing_is_claimed():
    said = beyond_baselines(exact({"far": (0.9, False), "random": (0.5, True)}, by_chance=None))
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
    assert len(rows) == len(table) and page.count("<table>") == 2
    for shown, row in zip(rows, table.to_dict("records"), strict=True):
        assert shown[:3] == [
            row["method"] + " (data-free)" * row["data_free"],
            row["selection"],
            row["refinement"],
        ]
        assert shown[3:] == ["–" if pd.isna(row[name]) else f"{row[name]:.3f}" for name in SHOWN]
    assert "small: llama, 5 % of the weights of every projection, norms kept" in page
    assert "large: gemma2, whole decoder blocks 1, 2" in page
    assert page.count("Methods that exceed the best data-free baseline (magnitude") == 2
