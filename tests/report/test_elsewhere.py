"""Planted minus elsewhere must equal its definition, be zero without a plant, and be claimed only where it is sure."""

from statistics import fmean, median, stdev

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from safety_regions.formats.contracts import RECOVERY
from safety_regions.report.elsewhere import (
    LEAST,
    areas_by_truth,
    areas_elsewhere,
    differences_in_words,
    planted_minus_elsewhere,
)
from safety_regions.report.figures.recovery import recovery_rows
from safety_regions.report.pages.recovery import recovery_page, recovery_table
from tests.report import synthetic_tables as synthetic
from tests.report.shown import cells_of

SETS = ("fraud", "weapons")
SEES = {"sees": 0.2, "blind": 0.0, "magnitude": 0.05}
"""Method -> what a plant adds to its AUROC."""


def rotated(rng, places, method_of=None, noise=0.02):
    """Return tables and cards of one group: method -> AUROC of the place, plus `SEES` where the organism is planted."""
    level = {(m, place): rng.uniform(0.3, 0.7) for m in SEES for place in set(places)}
    cards = {
        f"o{i}": {"family": "llama", "plant": {"layers": [place], "norm": "free"}, "place": f"layer {place}",
                  "group": "o0", "seed": i % 3}
        for i, place in enumerate(places)
    }  # fmt: skip
    tables = {}
    for j, (own, _) in enumerate(cards.items()):
        rows = []
        for i, truth in enumerate(cards):
            for method, seen in SEES.items():
                for name in SETS:
                    area = level[method, places[i]] + seen * (places[i] == places[j]) + rng.normal() * noise
                    more = {"auroc": area, "pooled_auroc": area + 0.1, "method": method, "name": name}
                    rows.append({"truth": truth, "selection": "row-0.05", "refinement": "raw", **more})
        columns = {c.name: [row.get(c.name) for row in rows] for c in RECOVERY.columns}
        tables[own] = pa.table(columns, schema=RECOVERY.schema)
    return tables, cards


def stacked(tables, cards) -> pd.DataFrame:
    rows = {name: recovery_rows(table, ["magnitude"], name) for name, table in tables.items()}
    areas = {name: areas_by_truth(table) for name, table in tables.items()}
    return recovery_table(rows, cards, areas_elsewhere(areas, cards))


def literal(tables, cards, method, area) -> list[float]:
    """Planted minus elsewhere of each organism, from the rows."""

    def found(j, i):
        own = [r for r in tables[j].to_pylist() if (r["truth"], r["method"]) == (i, method)]
        return median(r[area] for r in own)

    return [
        found(i, i) - fmean(found(j, i) for j in cards if cards[j]["place"] != cards[i]["place"])
        for i in cards
    ]


@pytest.mark.parametrize("area", ["auroc", "pooled_auroc"])
def test_planted_minus_elsewhere_is_its_definition(area):
    tables, cards = rotated(np.random.default_rng(1), [0, 0, 1, 2, 2, 3])
    table = stacked(tables, cards)
    found = planted_minus_elsewhere(table, area)
    assert list(found.index) == ["sees", "blind", "magnitude"]
    assert table.drop_duplicates("organism")["elsewhere"].tolist() == [4, 4, 5, 4, 4, 5]
    of = {method: literal(tables, cards, method, area) for method in SEES}
    for method, row in found.iterrows():
        assert row["difference"] == pytest.approx(fmean(of[method]))
        assert [row["lowest"], row["highest"]] == pytest.approx([min(of[method]), max(of[method])])
        spread = stdev(of[method]) / 6**0.5 * 2.5706  # t at 97.5 % with five degrees of freedom
        assert [row["low"], row["high"]] == pytest.approx(
            [row["difference"] - spread, row["difference"] + spread], rel=1e-4
        )
        assert row["planted"] - row["elsewhere"] == pytest.approx(row["difference"])
        assert (row["organisms"], row["seeds"]) == (6, 3)
    above = min(a - b for a, b in zip(of["sees"], of["magnitude"], strict=True))
    assert found.loc["sees", "beyond"] == pytest.approx(above)


@pytest.mark.slow
def test_what_a_place_gives_without_a_plant_cancels_and_what_a_plant_adds_remains():
    rng, found = np.random.default_rng(2), []
    for _ in range(30):
        found.append(planted_minus_elsewhere(stacked(*rotated(rng, [0, 1, 2, 3])), "auroc")["difference"])
    means, errors = pd.concat(found, axis=1).mean(axis=1), pd.concat(found, axis=1).std(axis=1) / np.sqrt(30)
    for method, seen in SEES.items():
        assert abs(means[method] - seen) < 4 * errors[method]


def test_a_method_that_sees_nothing_is_rarely_said_to_find_a_plant():
    """Of three organisms, all differences are above zero in an eighth of the cases; a fortieth is claimed."""
    rng, cases = np.random.default_rng(5), 2000
    table = pd.DataFrame(
        {
            "organism": [f"o{i}" for i in range(3)] * cases,
            "method": np.repeat([f"m{case}" for case in range(cases)], 3),
            "data_free": False, "reads_base": False, "seed": 0, "elsewhere_auroc": 0.5, "chance_auroc": 0.5,
            "auroc": 0.5 + rng.normal(size=3 * cases),
        }
    )  # fmt: skip
    found = planted_minus_elsewhere(table, "auroc")
    error = (0.125 * 0.875 / cases) ** 0.5
    assert abs((found["lowest"] > 0).mean() - 0.125) < 4 * error
    assert ((found["lowest"] > 0) & (found["low"] > 0)).mean() < 0.025 + 4 * error


def test_organisms_at_the_same_place_are_no_comparison():
    tables, cards = rotated(np.random.default_rng(3), [1, 1])
    table = stacked(tables, cards)
    assert table["elsewhere"].eq(0).all() and table["elsewhere_auroc"].isna().all()
    assert "No organism that differs only in the place" in recovery_page(table)


def rows_of(**ranges) -> pd.DataFrame:
    """Return the table of `planted_minus_elsewhere` from method -> (lowest, mean, highest, beyond).

    The interval of the mean is as wide as the range, but for a method named unsure, where it includes zero.
    """
    frame = pd.DataFrame.from_dict(ranges, "index", columns=["lowest", "difference", "highest", "beyond"])
    frame = frame.assign(data_free=frame.index == "magnitude", organisms=4, seeds=3)
    low = frame["lowest"].where(frame.index != "unsure", -0.01)
    return frame.assign(low=low, high=frame["highest"])


def test_words_claim_only_what_range_and_interval_show():
    rows = rows_of(
        sure=(0.01, 0.2, 0.3, 0.02), near=(0.01, 0.1, 0.2, -0.1), wide=(-0.1, 0.2, 0.5, -0.3),
        under=(-0.2, -0.1, -0.05, -0.4), unsure=(0.001, 0.01, 0.1, 0.1), magnitude=(0.01, 0.05, 0.1, np.nan),
    )  # fmt: skip
    assert differences_in_words(rows) == (
        "Planted minus elsewhere is above zero, in each of 4 organisms (3 training seeds) and in the 95 % interval of "
        "its mean, for: sure (+0.200, +0.010 to +0.300), near (+0.100, +0.010 to +0.200), magnitude (+0.050, +0.010 to "
        "+0.100); below zero in the same sense for: under (-0.100, -0.200 to -0.050); its range or interval includes "
        "zero, so nothing is claimed, for: wide (+0.200, -0.100 to +0.500), unsure (+0.010, +0.001 to +0.100). Also "
        "above the data-free baseline with the largest difference, of those that read no more than the method, in each "
        "organism: sure."
    )
    none = differences_in_words(rows.loc[["wide", "magnitude"]])
    assert none.endswith("So no method that uses prompts is said to find what was planted.")
    alone = differences_in_words(rows.loc[["sure"]].assign(beyond=np.nan))
    assert alone.endswith("There is no data-free baseline to compare with.")
    few = differences_in_words(rows.assign(organisms=LEAST - 1))
    assert few.startswith("Planted minus elsewhere is known for 2 organisms, too few") and "sure" not in few


def test_the_page_shows_the_differences_of_each_group():
    tables, cards = rotated(np.random.default_rng(4), [0, 1, 2, 3])
    other = {"alone": synthetic.recovery({"sees": 0.6, "magnitude": 0.5}, SETS, truths={"alone": 0.0})}
    card = {"family": "qwen3", "plant": {"weights": 0.1}, "place": "draw 0", "group": "alone", "seed": 0}
    table = stacked(tables | other, cards | {"alone": card})
    page = recovery_page(table)
    assert "llama: 1 whole decoder block, one place per organism" in page
    assert "qwen3: 10 % of the weights of every projection" in page
    rows = [row for row in cells_of(page) if row and row[0] in ("layers", "weights")]
    group = table[table["group"] == "o0"]
    for units, area in (("layers", "pooled_auroc"), ("weights", "auroc")):
        found = planted_minus_elsewhere(group, area)
        shown = [row for row in rows if row[0] == units]
        assert [row[1] for row in shown] == ["sees", "blind", "magnitude (data-free)"]
        for row, (_, expected) in zip(shown, found.iterrows(), strict=True):
            names = ("planted", "elsewhere", "difference", "lowest", "highest", "low", "high")
            assert row[2:9] == [f"{expected[name]:.3f}" for name in names]
            assert row[9:] == ["–", "4", "3"]
    assert page.count("in this organism alone") == 4, "of one organism with a planted layer, nothing is said"
