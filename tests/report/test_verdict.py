"""The verdict table must equal medians and means counted literally."""

import math
from itertools import combinations, product
from statistics import fmean, median

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from safety_regions.errors import StudyError
from safety_regions.report.verdict.measure import CELL, CORRECTED, MEANS, MEDIANS, PREFIX, jackknife, measure
from safety_regions.report.verdict.sentences import verdict_of
from tests.report import synthetic_tables as synthetic

# Neither backbones nor methods are in alphabetical order.
CELLS = list(product(["llama", "gemma"], ["wanda", "snip"], ["row-0.05"], ["raw", "minus-everyday"]))
NAMES = tuple(sorted(synthetic.NAMES[:3]))
LABELS = ["/".join(cell) for cell in CELLS]


def full() -> tuple[dict, pd.DataFrame, dict]:
    """Return overlap tables, verdicts of a study with all measurements, and its pools, blocks and recovery tables."""
    overlaps, _, sizes = synthetic.gathered(CELLS, 3)
    frame = overlaps[CELLS[0]].to_pandas()
    gone = (frame["level"] == "model") & (frame["combination"] == " & ".join(NAMES[:2]))
    frame.loc[
        gone, ["iou", "chance", "floor", "floor_low", "floor_high", "half_iou", "normalised", "permuted_p"]
    ] = np.nan
    overlaps[CELLS[0]] = pa.Table.from_pandas(frame, overlaps[CELLS[1]].schema, preserve_index=False)
    beside = {
        "pools": {LABELS[0]: synthetic.pools(NAMES, orders=3)},
        "cores": {LABELS[0]: synthetic.cores(3)},
        "blocks": {LABELS[1]: synthetic.sample_sizes(NAMES)},
        "crossed": {LABELS[0]: synthetic.crossed(NAMES, 0.3, 0.6)},
        "recovery": {
            "gemma": synthetic.recovery(
                {"snip": 0.8, "random": 0.5}, NAMES, truths={"gemma": 0.0, "elsewhere": -0.3}
            )
        },
    }
    return overlaps, measure(synthetic.iou(overlaps), sizes, NAMES, **beside), beside


@pytest.fixture(scope="module")
def study():
    return full()


def known(values) -> list[float]:
    return [float(value) for value in values if not pd.isna(value)]


def test_there_is_a_row_for_each_cell_in_the_studys_order(study):
    _, verdicts, _ = study
    assert verdicts[CELL].to_numpy().tolist() == [list(cell) for cell in CELLS]


@pytest.mark.parametrize("i", range(len(CELLS)))
def test_numbers_are_those_of_the_pairs(study, i):
    overlaps, verdicts, _ = study
    row = verdicts.iloc[i]
    pairs = [
        r for r in overlaps[CELLS[i]].to_pylist() if r["level"] == "model" and r["k"] == 2
    ]  # fmt: skip
    for role, prefix in PREFIX.items():
        one = [r for r in pairs if r["between"] == role]
        assert row[f"{prefix}pairs"] == len(one) == {"": 3, "mixed_": 6, "utility_": 1}[prefix]
        for name in [n for n in (*MEDIANS, *MEANS) if f"{prefix}{n}" in verdicts]:
            statistic = median if name in MEDIANS else fmean
            assert row[f"{prefix}{name}"] == pytest.approx(statistic(known(r[name] for r in one)))
            if name in CORRECTED:
                labelled = [dict(zip("ab", r["combination"].split(" & "), strict=True)) | r for r in one]
                error = jackknife(pd.DataFrame(labelled), name)
                assert row[f"{prefix}{name}_se"] == pytest.approx(error, nan_ok=True)
    ious = known(r["iou"] for r in pairs if r["between"] == "identification")
    assert (
        row["defined"]
        == row["normalised_pairs"]
        == row["permuted_pairs"]
        == len(ious)
        == (2 if i == 0 else 3)
    )
    p_values = known(r["permuted_p"] for r in pairs if r["between"] == "identification")
    assert row["differing_pairs"] == sum(p <= 0.05 for p in p_values)
    assert (row["iou_min"], row["iou_max"]) == (min(ious), max(ious))


def test_prompts_are_the_extremes_of_all_pairs(study):
    overlaps, verdicts, _ = study
    for cell, row in zip(CELLS, verdicts.itertuples(), strict=True):
        pairs = [r for r in overlaps[cell].to_pylist() if r["level"] == "model" and r["k"] == 2]
        assert row.n_smallest == min(r["n_smallest"] for r in pairs)
        assert row.n_largest == max(r["n_largest"] for r in pairs)
        assert row.shared == max(r["shared"] for r in pairs) > 0.02
        assert f"Sets have {row.n_smallest:.0f} to 100 prompts" in row.verdict
        assert f"Up to {100 * row.shared:.0f} % of the prompts of a set" in row.verdict


def test_sizes_are_those_of_identification_regions(study):
    _, verdicts, _ = study
    for seed, (cell, row) in enumerate(zip(CELLS, verdicts.itertuples(), strict=True)):
        masks = np.concatenate(list(synthetic.regions(5, 1, cell[-1], 100, seed=seed).values()), axis=1)[:3]
        assert row.percent == pytest.approx(100 * masks.mean())
        assert row.n_units == 700 and not row.whole_layers


def test_what_stands_beside_belongs_to_its_cell(study):
    _, verdicts, beside = study
    rows = dict(zip(LABELS, verdicts.to_dict("records"), strict=True))
    last = [r for r in beside["pools"][LABELS[0]].to_pylist() if r["k"] == 2]
    assert rows[LABELS[0]]["pool_k"] == 2
    for kind in ("next", "rest"):
        ious = [r["iou"] for r in last if r["against"] == kind]
        assert len(ious) == 3 and rows[LABELS[0]][f"pool_{kind}"] == pytest.approx(median(ious))
        shuffled = {"next": "pool_shuffled", "rest": "pool_rest_shuffled"}[kind]
        assert rows[LABELS[0]][shuffled] == pytest.approx(median(ious) / 2)
    assert rows[LABELS[0]]["pool_nested"] == 0
    assert rows[LABELS[0]]["core_k"] == 3
    # The regions of draw d have 100 + d units, and those of all three sets together that share of 100, plus d.
    core, mixed = 0.64, [(81 + draw) / (100 + draw) for draw in (1, 2)]
    assert rows[LABELS[0]]["core"] == pytest.approx(core)
    assert rows[LABELS[0]]["core_chance"] == pytest.approx(0.05**2)
    assert rows[LABELS[0]]["core_shuffled"] == pytest.approx(fmean([(9 + d) / (100 + d) for d in (1, 2)]))
    assert (rows[LABELS[0]]["core_mixed_low"], rows[LABELS[0]]["core_mixed_high"]) == pytest.approx(mixed)
    # Two blocks fit for 10, 25 and 50 prompts, but not for 100.
    blocks = [
        r["iou"] for r in beside["blocks"][LABELS[1]].to_pylist() if r["pair"] == "blocks" and r["n"] == 50
    ]
    assert rows[LABELS[1]]["block_n"] == 50 and rows[LABELS[1]]["block_iou"] == pytest.approx(median(blocks))
    crossed = rows[LABELS[0]]
    assert (crossed["same_prompts_iou"], crossed["same_responses_iou"]) == pytest.approx((0.3, 0.6), abs=0.01)
    plant = beside["recovery"]["gemma"].to_pylist()
    for refinement in ("raw", "minus-everyday"):
        own = [r for r in plant if r["truth"] == "gemma"]
        one = [r for r in own if r["method"] == "snip" and r["refinement"] == refinement]
        for name in ("iou", "chance", "auroc", "chance_auroc"):
            found = rows[f"gemma/snip/row-0.05/{refinement}"][f"recovery_{name}"]
            assert len(one) == 3 and found == pytest.approx(median(r[name] for r in one))
    for column, where in {
        "pool_next": LABELS[:1],
        "core": LABELS[:1],
        "block_iou": LABELS[1:2],
        "same_prompts_iou": LABELS[:1],
        "recovery_iou": [label for label in LABELS if label.startswith("gemma/snip")],
    }.items():
        assert [label for label, row in rows.items() if not pd.isna(row[column])] == where


@pytest.mark.slow
def test_a_verdict_on_planted_neurons_reads_pooled_scores():
    table = synthetic.recovery({"snip": 0.8, "random": 0.5}, NAMES, truths={"gemma": 0.0}, pooled=True)
    _, iou, sizes = synthetic.gathered(CELLS, 3)
    found = measure(iou, sizes, NAMES, recovery={"gemma": table}, data_free=["random"])
    cell = next(r for r in found.to_dict("records") if r["backbone"] == "gemma" and r["method"] == "snip")
    pooled = {
        m: [r["pooled_auroc"] for r in table.to_pylist() if r["method"] == m] for m in ("snip", "random")
    }
    assert cell["recovery_auroc"] == pytest.approx(median(pooled["snip"]))
    assert cell["recovery_baseline"] == pytest.approx(median(pooled["random"]))
    assert cell["recovery_chance_auroc"] == 0.5


def test_the_baseline_of_a_method_knows_no_more_than_it_does():
    """The size of the weight change finds every plant, and would hide what methods without the base find."""
    aurocs = {"snip": 0.8, "wanda": 0.9, "random": 0.5, "delta": 1.0}
    table = synthetic.recovery(aurocs, NAMES, truths={"gemma": 0.0})
    _, iou, sizes = synthetic.gathered([("gemma", m, "row-0.05", "raw") for m in ("snip", "wanda")], 3)
    how = {"data_free": ["random", "delta"], "base_reading": ["wanda", "delta"]}
    rows = measure(iou, sizes, NAMES, recovery={"gemma": table}, **how).set_index("method")
    of = {m: [r["auroc"] for r in table.to_pylist() if r["method"] == m] for m in aurocs}
    assert rows.loc["snip", "recovery_baseline"] == pytest.approx(median(of["random"]))
    assert rows.loc["wanda", "recovery_baseline"] == pytest.approx(median(of["delta"]))
    assert "Scores distinguish the planted region" in rows.loc["snip", "verdict"]
    assert "Scores do not distinguish the planted region" in rows.loc["wanda", "verdict"]


def test_a_verdict_is_the_words_of_its_row(study):
    _, verdicts, _ = study
    for row in verdicts.to_dict("records"):
        assert row["verdict"] == verdict_of({k: v for k, v in row.items() if k != "verdict"})
        assert f"normalised {row['normalised']:.2f}" in row["verdict"]
    assert "over 2 of 3 pairs" in verdicts["verdict"][0]
    assert "Not measured, or undefined: blocks of prompts." in verdicts["verdict"][0]
    assert "Not measured, or undefined: pools." in verdicts["verdict"][1]


def test_a_study_without_frames_says_so():
    _, iou, sizes = synthetic.gathered(CELLS[:2], 3, with_frames=False)
    verdicts = measure(iou, sizes, NAMES)
    assert (
        verdicts[["floor", "ceiling", "normalised", "mixed_iou", "pool_k", "recovery_iou"]]
        .isna()
        .all(axis=None)
    )
    assert (verdicts["mixed_pairs"] == 0).all() and (verdicts["defined"] == 3).all()
    missing = "floor, ceiling, overlap with utility sets, pools, blocks of prompts."
    assert all(said.endswith(missing) for said in verdicts["verdict"])


def test_a_single_set_has_sizes_and_no_iou():
    _, iou, sizes = synthetic.gathered(CELLS[:2], 1, with_frames=False)
    verdicts = measure(iou, sizes, NAMES[:1])
    assert (verdicts["pairs"] == 0).all() and verdicts["iou"].isna().all()
    assert verdicts["percent"].iloc[0] == pytest.approx(5)
    assert (verdicts["verdict"] == "One set: nothing to compare.").all()


@pytest.mark.parametrize("layers, words", [(3, "The units are 3 whole layers, too few"), (12, "IoU 0.")])
def test_whole_layers(layers, words):
    table = synthetic.overlap(synthetic.regions(2, 1, units=60)).to_pandas().query("level == 'model'")
    sizes = synthetic.sizes(synthetic.regions(2, 1, units=60), "raw").to_pandas().groupby("name").head(1)
    sizes = sizes.assign(layer=pd.array([None] * 2, "Int16"), projection=None, n_units=layers, n_selected=1)
    names = synthetic.NAMES[:2]
    gathered = synthetic.iou({("organism", "snip", "row-0.05", "raw"): pa.Table.from_pandas(table)})
    row = measure(gathered, pa.Table.from_pandas(sizes, synthetic.REGION_SIZES.schema), names).iloc[0]
    assert row["whole_layers"] and row["n_units"] == layers and words in row["verdict"]
    assert row["percent"] == pytest.approx(100 / layers)


def test_regions_that_are_all_empty_are_called_so():
    _, iou, sizes = synthetic.gathered(CELLS[:1], 2, with_frames=False)
    frame = iou.to_pandas().assign(iou=np.nan, chance=np.nan)
    row = measure(pa.Table.from_pandas(frame, iou.schema), sizes, sorted(synthetic.NAMES[:2])).iloc[0]
    assert (row["pairs"], row["defined"]) == (1, 0)
    assert row["verdict"] == "Every region is empty: nothing to compare."


def test_a_core_without_shuffled_sets_is_not_claimed():
    _, iou, sizes = synthetic.gathered(CELLS[:1], 3)
    [row] = measure(iou, sizes, NAMES, cores={LABELS[0]: synthetic.cores(3, shuffled=False)}).to_dict(
        "records"
    )
    assert row["core"] == pytest.approx(0.64) and math.isnan(row["core_shuffled"])
    assert (
        "0.640 of a region lies in the regions of all 3 sets (chance 0.003; with shuffled" in row["verdict"]
    )


def test_pools_and_blocks_without_a_row_or_an_iou_are_not_measured():
    _, iou, sizes = synthetic.gathered(CELLS[:2], 2, with_frames=False)
    names = tuple(sorted(synthetic.NAMES[:2]))
    pools = {LABELS[0]: synthetic.pools(names[:1]), LABELS[1]: synthetic.pools(names, iou=None)}
    blocks = {
        LABELS[0]: synthetic.sample_sizes(names, blocks=1),
        LABELS[1]: synthetic.sample_sizes(names, iou=None),
    }
    verdicts = measure(iou, sizes, names, pools, blocks)
    assert verdicts[["pool_next", "pool_rest", "block_iou"]].isna().all(axis=None)
    assert verdicts["verdict"].str.endswith("pools, blocks of prompts.").all()


def test_a_cell_without_its_pairs_is_refused():
    _, iou, sizes = synthetic.gathered(CELLS[:2], 3, with_frames=False)
    with pytest.raises(StudyError, match=r"llama/wanda/row-0.05/raw.*0 pairs"):
        measure(iou.slice(len(iou) // 2), sizes, NAMES)
    with pytest.raises(StudyError, match=r"3 pairs.*each of 6"):
        measure(iou, sizes, [*NAMES, "another"])


def test_the_standard_error_is_the_jackknife_over_sets():
    names = ("a", "b", "c", "d")
    ious = dict(zip(combinations(names, 2), (0.1, 0.4, 0.2, 0.3, 0.6, 0.25), strict=True))
    rows = pd.DataFrame([{"a": a, "b": b, "iou": iou} for (a, b), iou in ious.items()])
    left = [median(iou for pair, iou in ious.items() if one not in pair) for one in names]
    literal = math.sqrt(3 / 4 * sum((m - fmean(left)) ** 2 for m in left))
    assert jackknife(rows, "iou") == pytest.approx(literal)
    assert math.isnan(jackknife(rows[rows["b"] == "b"], "iou")), "two sets: nothing is left"


@pytest.mark.slow
def test_the_jackknife_covers_the_spread_over_draws_of_sets():
    """Sets with an effect each, pairs with their sum: the error over sets, not the smaller one over pairs."""
    rng, medians, errors = np.random.default_rng(0), [], []
    for _ in range(300):
        effect = rng.normal(0, 0.05, 8)
        rows = pd.DataFrame(
            [{"a": i, "b": j, "iou": 0.3 + effect[i] + effect[j]} for i, j in combinations(range(8), 2)]
        )
        medians.append(rows["iou"].median())
        errors.append(jackknife(rows, "iou"))
    assert np.std(medians) == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.35)
    over_pairs = 1.25 * np.sqrt(2) * 0.05 / np.sqrt(28)
    assert np.mean(errors) > 1.5 * over_pairs
