"""The comparison of two studies gives known differences, intervals counted literally, and no number that misleads."""

from functools import cache
from itertools import combinations
from statistics import fmean, median

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from safety_regions.report.combinations import pair_rows
from safety_regions.report.compared import COLUMNS, Results, compare_answers, compare_results
from safety_regions.report.differing import differences
from safety_regions.report.pages.compared import compared_page
from safety_regions.report.verdict.measure import CELL, SEPARATOR, measure
from tests.report import synthetic_tables as synthetic
from tests.report.shown import cells_of

CELLS = [("llama", "snip", "row-0.05", "raw"), ("llama", "wanda", "row-0.05", "raw")]
NAMES = tuple(sorted(synthetic.NAMES[:5]))
T4 = 2.776445
"""The 97.5 % quantile of Student's t with 4 degrees of freedom, from a table."""
MADE = {
    "method": "snip", "granularity": "weight", "scope": "row", "fraction": 0.05,
    "weight_shapes": {"layers.0.q": [4, 4]}, "options": {"absolute": True},
    "code": "0123", "source": "results/organisms/llama", "temperature": 0.7,
    "samples_used": 40, "prompts_used": [f"fraud/{i}" for i in range(40)], "response_tokens": 300,
}  # fmt: skip


@cache
def gathered() -> tuple[dict, pa.Table, pa.Table]:
    return synthetic.gathered(CELLS, len(NAMES))


def study(
    cells=CELLS,
    made: dict | None = None,
    drop: str | None = None,
    weights: str = "a",
    judged: bool = False,
    **columns,
) -> Results:
    """Return a study of five sets in which columns of pairs are changed.

    Args:
        columns: column -> a function of its old values, an array with one entry per pair of harmful sets.
        made: changes of `MADE`, the metadata of every region; ``drop``: a set that the study lacks.
        judged: whether it has verdicts.
    """
    overlaps, _, sizes = gathered()
    changed = {}
    for cell in cells:
        frame = overlaps[cell].to_pandas()
        here = (frame["level"] == "model") & (frame["k"] == 2) & (frame["between"] == "identification")
        for name, change in columns.items():
            frame.loc[here, name] = change(frame.loc[here, name].to_numpy())
        if drop:
            frame = frame[~frame["combination"].str.split(" & ").map(lambda names: drop in names)]
        changed[cell] = pa.Table.from_pandas(frame, overlaps[cell].schema, preserve_index=False)
    names = [name for name in NAMES if name != drop]
    sizes = pa.concat_tables([_rows(sizes, cell, names) for cell in cells])
    verdicts = measure(synthetic.iou(changed), sizes, names) if judged else pd.DataFrame(columns=CELL)
    regions = {cell: {name: MADE | (made or {}) for name in names} for cell in cells}
    pairs = pair_rows((SEPARATOR.join(cell), table) for cell, table in changed.items())
    return Results(pairs, verdicts, regions, {"llama": weights})


def _rows(sizes: pa.Table, cell: tuple, names: list[str]) -> pa.Table:
    frame = sizes.to_pandas()
    wanted = (frame[CELL].astype(str) == list(cell)).all(axis=1) & frame["name"].isin(names)
    return pa.Table.from_pandas(frame[wanted], sizes.schema, preserve_index=False)


def row(table: pd.DataFrame, measured: str = "iou", cell: tuple = CELLS[0]) -> pd.Series:
    (found,) = table[(table[CELL] == list(cell)).all(axis=1) & (table["measure"] == measured)].iloc
    return found


def test_a_known_difference_is_found_and_has_no_width_where_all_pairs_share_it():
    table = compare_results(study(), study(iou=lambda old: old + 0.125))
    assert list(table.columns) == COLUMNS and set(table["found"]) == {"both"}
    found = row(table)
    assert found["here"] - found["there"] == pytest.approx(0.125)
    assert [found[f"difference{end}"] for end in ("", "_low", "_high")] == pytest.approx([0.125] * 3)
    assert (found["sets"], found["pairs"], found["comparable"], found["differs"]) == (5, 10, "yes", "")
    others = table[table["measure"] != "iou"]
    assert others["difference"].tolist() == pytest.approx([0] * len(others)) and len(others) >= 20


@pytest.mark.parametrize(
    ("measured", "middle"), [("iou", median), ("floor", fmean), ("disattenuated", median)]
)
def test_intervals_leave_out_one_set_of_both_studies_at_once(measured, middle):
    rng = np.random.default_rng(1)
    there, here = study(), study(**{measured: lambda old: old + rng.normal(0.05, 0.02, len(old))})
    values = {}
    for side, one in (("there", there), ("here", here)):
        rows = one.pairs[(one.pairs["refinement"] == SEPARATOR.join(CELLS[0]))]
        rows = rows[rows["between"] == "identification"]
        values[side] = {
            pair: v for *pair, v in rows[["a", "b", measured]].to_numpy() for pair in [tuple(pair)]
        }

    def of(left_out: str | None) -> dict[str, float]:
        kept = [pair for pair in combinations(NAMES, 2) if left_out not in pair]
        found = {side: middle(values[side][pair] for pair in kept) for side in values}
        return found | {"difference": found["here"] - found["there"]}

    found, parts = row(compare_results(there, here), measured), [of(name) for name in NAMES]
    for name, value in of(None).items():
        mean = fmean(part[name] for part in parts)
        error = (4 / 5 * sum((part[name] - mean) ** 2 for part in parts)) ** 0.5
        assert found[name] == pytest.approx(value) and error > 0
        assert found[f"{name}_low"] == pytest.approx(value - T4 * error, rel=1e-5)
        assert found[f"{name}_high"] == pytest.approx(value + T4 * error, rel=1e-5)


def test_cells_and_measures_of_one_study_only_have_no_difference():
    there = study(cells=CELLS[:1])
    here = study(cells=CELLS, ceiling=lambda old: old * np.nan)
    table = compare_results(there, here)
    only = table[table["method"] == "wanda"]
    assert set(only["found"]) == {"here"} and only["difference"].isna().all() and only["there"].isna().all()
    assert set(only["comparable"]) == {"no"} and row(table, cell=CELLS[1])["here"] > 0
    ceiling = row(table, "ceiling")
    assert ceiling["there"] > 0 and np.isnan(ceiling["here"]) and np.isnan(ceiling["difference"])
    assert set(compare_results(here, there).query("method == 'wanda'")["found"]) == {"there"}
    page = compared_page("before", table, compare_answers(there, here))
    assert "Only here" in page and "llama / wanda / row-0.05 / raw" in page and "Only there" not in page


def test_a_pair_without_a_value_on_one_side_is_left_out_of_both():
    def gone(old):
        return np.where(np.arange(len(old)) == 0, np.nan, old)

    found = row(compare_results(study(), study(iou=gone)))
    assert found["pairs"] == 9 and found["difference"] == found["here"] - found["there"] == 0


def test_only_common_sets_are_compared_and_the_others_are_named():
    found = row(compare_results(study(), study(drop=NAMES[0])))
    assert (found["sets"], found["pairs"], found["comparable"]) == (4, 6, "yes")
    assert found["differs"] == f"sets (only there {NAMES[0]}), left out" and found["difference"] == 0


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"method": "signed_snip"}, "method (signed_snip there, snip here)"),
        ({"fraction": 0.1}, "kept fraction (0.1 there, 0.05 here)"),
        ({"granularity": "neuron"}, "units (neuron there, weight here)"),
        ({"scope": "matrix"}, "scope (matrix there, row here)"),
        ({"weight_shapes": {}}, "shape of the backbone"),
    ],
)
def test_other_units_are_named(made, said):
    found = differences({"fraud": MADE, "theft": MADE | made}, {"fraud": MADE, "theft": MADE})
    assert found == ([said], [], [])


def test_other_units_have_no_difference():
    table = compare_results(study(made={"fraction": 0.1}), study())
    assert set(table["comparable"]) == {"no"} and table["difference"].isna().all()
    assert set(table["differs"]) == {"kept fraction (0.1 there, 0.05 here)"} and table["there"].notna().all()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            {"options": {"absolute": False, "new": 1}},
            "options (absolute False there, True here, new 1 there, None here)",
        ),
        ({"code": "4567"}, "code"),
        ({"temperature": 0.0}, "temperature (0.0 there, 0.7 here)"),
        ({"response_tokens": 301}, "responses (301 there, 300 here)"),
        ({"source": "old/organisms/llama"}, ""),
        ({"source": "other"}, "checkpoint (other there, llama here)"),
        (
            {"prompts_used": [*MADE["prompts_used"][1:], "fraud/99"]},
            "prompts (1 of 40 only here, 1 only there)",
        ),
        ({"samples_used": 38}, ""),
    ],
)
def test_what_may_explain_a_difference_is_named(made, said):
    assert differences({"fraud": MADE | made}, {"fraud": MADE}) == ([], [], [said] if said else [])


def test_with_another_number_of_prompts_only_disattenuated_values_are_compared():
    table = compare_results(study(made={"samples_used": 20}), study())
    free = {"disattenuated", "disattenuated_floor", "mixed_disattenuated"}
    assert set(table.loc[table["comparable"] == "yes", "measure"]) == free
    assert set(table["differs"]) == {"number of prompts (20 there, 40 here)"}


def test_weights_and_missing_regions_are_named():
    here = study()
    unknown = row(compare_results(study(weights="b")._replace(made={}), here))
    assert unknown["differs"] == "weights of llama; not known how the regions were made (no region files)"
    assert unknown["comparable"] == "yes"
    old = {key: value for key, value in MADE.items() if key != "code"}
    assert differences({"fraud": old}, {"fraud": MADE}).others == ["code (not known)"]


def test_answers_that_changed_are_named_and_the_others_counted():
    there = study(judged=True)
    here = study(judged=True, normalised=lambda old: 0 * old + 0.95, half_iou=lambda old: 0 * old + 0.7)
    answers = compare_answers(there, here)
    changed = answers[answers["changed"] == "yes"]
    assert set(changed["question"]) >= {"Do two harmful sets give the same region?"}
    assert set(changed["here"]) >= {"as similar as two halves of one set"} and len(changed) < len(answers)
    rows = compare_results(there, study(iou=lambda old: old + 0.125))
    page = compared_page("b<efore", rows, answers)
    assert "b&lt;efore" in page and f"The same answer was found\n{len(answers) - len(changed)} times" in page
    shown = [found for found in cells_of(page) if len(found) == 7]
    assert [list(map(str, found)) for found in changed.drop(columns="changed").to_numpy()] == shown
    assert "2 cells are in both studies" in page and "+0.125 (+0.125 to +0.125)" in page
    assert "excludes zero in 2: larger here in 2, smaller here in 0" in page
    same = compare_answers(there, there)
    assert (
        set(same["changed"]) == {"no"}
        and len(same) > 0
        and "No answer changed" in compared_page("a", rows, same)
    )
    old = there._replace(verdicts=there.verdicts.drop(columns=["ceiling", "floor"]))
    missing = compare_answers(old, there).query("changed == 'yes'")
    assert "compared with chance only" in set(missing["there"]), "a column that is missing was not measured"
