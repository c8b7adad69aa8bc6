"""The scripts of the report write each figure and the table that it shows, under the given names, without prompts."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from safety_regions.formats.contracts import (
    CORES,
    CROSSED,
    IOU,
    MEMBERSHIP,
    OVERLAP,
    POOLS,
    RECOVERY,
    REGION_SIZES,
    RESPONSES,
    SAMPLE_SIZES,
    SHARED_PROMPTS,
    WEIGHT_SCORES,
)  # fmt: skip
from safety_regions.formats.parquet import write_table
from safety_regions.formats.region import Region, write_region
from safety_regions.report.figures import convergence, cores, ladder, recovery, sample_sizes
from safety_regions.report.figures.of_overlap import figures_of_overlap
from safety_regions.report.files import save_text, save_tsv
from safety_regions.report.pages.ladders import ladder_rows
from safety_regions.report.pages.shared_prompts import shared_counts
from safety_regions.report.verdict.measure import measure
from tests.report import synthetic_tables as synthetic
from tests.report.shown import links_of
from tests.report.synthetic_report import SyntheticReport, verdicts_of
from tests.scripts.loading import load_script

PLACE = ("organism", "snip", "row-0.05")
NAMES = synthetic.NAMES[:3]
REFINEMENTS = ("raw", "minus-everyday")
SECRET = "zebra"
TITLES = {
    "iou": "Pairwise IoU of safety regions, whole model",
    "kway": "IoU of k sets at once, whole model",
    "sizes": "Region size, per cent of the units",
    "map": "Where sets agree: median pairwise IoU by layer and projection",
    "margins": "Pairwise IoU by layer and by projection",
}
"""The figures of draw_overlap, and the title of each."""


@pytest.fixture
def out(tmp_path):
    return {kind: tmp_path / f"out.{kind}" for kind in ("svg", "tsv", "html")}


def read_tsv(path):
    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values="NA")


def same(path, frame):
    """Check that the table in a text file equals the frame."""
    found = read_tsv(path)
    assert list(found.columns) == list(frame.columns) and len(found) == len(frame) > 0
    for name in frame:
        if pd.api.types.is_float_dtype(frame[name]):
            assert found[name].to_numpy(float) == pytest.approx(frame[name].to_numpy(float), nan_ok=True)
        else:
            assert found[name].astype(str).tolist() == frame[name].astype(str).tolist()


def written(folder, tables, contract, metadata=None):
    """Write the tables, and return name -> file."""
    paths = {name: folder / f"{name}.{contract.name}.parquet" for name in tables}
    for name, table in tables.items():
        write_table(paths[name], table, contract, metadata)
    return paths


def overlaps_of():
    found = {r: synthetic.regions(3, 2, r, units=100) for r in REFINEMENTS}
    return found, {r: synthetic.framed(synthetic.overlap(one)) for r, one in found.items()}


@pytest.mark.slow
def test_draw_overlap_gives_every_figure_its_own_name_and_table(tmp_path):
    found, tables = overlaps_of()
    counted = {r: synthetic.membership(one) for r, one in found.items()}
    memberships = {r: tmp_path / f"{r}.membership.parquet" for r in REFINEMENTS}
    for r, one in counted.items():
        write_table(memberships[r], one.table, MEMBERSHIP, one.metadata)
    outputs = {name: tmp_path / f"{name}.svg" for name in TITLES}
    outputs |= {f"{name}_table": tmp_path / f"{name}.tsv" for name in (*TITLES, "tree")}
    load_script("draw_overlap")(written(tmp_path, tables, OVERLAP), memberships, NAMES, PLACE, outputs)
    expected = figures_of_overlap(tables, counted, NAMES, PLACE).tables
    assert expected.keys() == {*TITLES, "tree"}
    for name, table in expected.items():
        same(outputs[f"{name}_table"], table)
    for name, title in TITLES.items():
        assert title in outputs[name].read_text() and " / ".join(PLACE) in outputs[name].read_text()


@pytest.mark.parametrize(
    "script,contract,make,rows",
    [
        ("draw_ladder", OVERLAP, lambda: overlaps_of()[1]["raw"], ladder.ladder),
        ("draw_convergence", POOLS, lambda: synthetic.pools(NAMES), convergence.pool_rows),
        ("draw_cores", CORES, synthetic.cores, cores.cores),
        ("draw_sample_sizes", SAMPLE_SIZES, lambda: synthetic.sample_sizes(NAMES), sample_sizes.size_rows),
    ],
)
def test_a_figure_of_all_refinements_shows_the_table_beside_it(tmp_path, out, script, contract, make, rows):
    tables = {refinement: make() for refinement in REFINEMENTS}
    load_script(script)(written(tmp_path, tables, contract), PLACE, out["svg"], out["tsv"])
    same(out["tsv"], rows(tables.items()))
    assert b"organism / snip / row-0.05" in out["svg"].read_bytes()


@pytest.mark.slow
def test_draw_methods_calls_datasets_after_their_files(tmp_path, out):
    methods, paths = ("snip", "wanda"), []
    for name in NAMES:
        table = synthetic.overlap(synthetic.regions(2, 1), names=methods)
        paths.append(tmp_path / f"{name}.parquet")
        write_table(paths[-1], table, OVERLAP)
    load_script("draw_methods")(paths, methods, 0.25, "organism", out["svg"], out["tsv"])
    found = read_tsv(out["tsv"])
    assert found["dataset"].tolist() == list(NAMES) and (found["iou"] <= found["possible"]).all()
    assert b"best 25 % of weights" in out["svg"].read_bytes()


@pytest.mark.slow
def test_draw_recovery_shows_the_table_beside_it(tmp_path, out):
    table = synthetic.recovery({"snip": 0.8, "random": 0.5})
    paths = written(tmp_path, {"organism": table}, RECOVERY)
    load_script("draw_recovery")(paths["organism"], ["random"], "organism", out["svg"], out["tsv"])
    same(out["tsv"], recovery.recovery_rows(table, ["random"], "organism"))


@pytest.mark.slow
def test_draw_refusals_reads_no_text_and_counts_by_role(tmp_path, out):
    answers, scores = [], []
    for dataset, rate in (("fraud", 1.0), ("everyday", 0.0)):
        answers.append(tmp_path / f"{dataset}.parquet")
        table = synthetic.responses(dataset, rate, prompt=SECRET)
        write_table(answers[-1], table, RESPONSES, {"backbone": "organism"})
    metadata = {"backbone": "organism", "name": "fraud", "label": "snip", "samples_used": 31}
    scores.append(tmp_path / "scores.parquet")
    write_table(scores[0], WEIGHT_SCORES.schema.empty_table(), WEIGHT_SCORES, metadata)
    roles = {"fraud": "identification", "everyday": "utility"}
    load_script("draw_refusals")(answers, scores, roles, out["svg"], out["tsv"])
    rates = read_tsv(out["tsv"])
    assert rates["role"].tolist() == ["identification"] * 2 + ["utility"] * 2
    assert rates["refusal_rate"].tolist() == [1, 1, 0, 0] and rates["used_snip"].max() == 31
    assert SECRET not in out["svg"].read_text() + out["tsv"].read_text()


def test_write_shared_prompts_counts_and_shows_no_prompt(tmp_path, out):
    table = synthetic.shared({("fraud", "hacking"): (2, 3)}, NAMES)
    path = written(tmp_path, {"shared": table}, SHARED_PROMPTS)["shared"]
    load_script("write_shared_prompts")(path, out["html"], out["tsv"])
    same(out["tsv"], shared_counts(table))
    assert "2 of 3 pairs of sets share no prompt" in out["html"].read_text()


def test_write_recovery_names_organisms_as_their_cards(tmp_path, out):
    tables = {
        name: synthetic.recovery(
            {"snip": 0.7, "random": 0.5}, truths={name: 0.2 if name == "a" else 0.1, other: 0.0}
        )
        for name, other in (("a", "b"), ("b", "a"))
    }
    cards = {
        name: {"family": "llama", "plant": {"layers": [i]}, "place": f"layer {i}", "group": "a", "seed": i}
        for i, name in enumerate(tables)
    }
    paths = written(tmp_path, tables, RECOVERY)
    load_script("write_recovery")(paths, cards, ["random"], [], out["html"], out["tsv"])
    rows = read_tsv(out["tsv"])
    first = rows.drop_duplicates("organism").set_index("organism")
    assert first["plant"].to_dict() == {name: f"whole decoder blocks {i}" for i, name in enumerate("ab")}
    assert set(rows.loc[rows["data_free"], "method"]) == {"random"}
    difference = first["auroc"] - first["elsewhere_auroc"]
    assert difference.to_dict() == pytest.approx({"a": 0.2, "b": 0.1}) and set(first["elsewhere"]) == {1}
    assert "a: llama" in out["html"].read_text() and "0.150" in out["html"].read_text()


@pytest.mark.slow
def test_write_verdict_measures_every_cell_with_what_stands_beside_it(tmp_path, out):
    cells = [(*PLACE, refinement) for refinement in REFINEMENTS]
    _, iou, sizes = synthetic.gathered(cells, 3)
    pools = {"/".join(cells[0]): synthetic.pools(NAMES)}
    blocks = {"/".join(cells[1]): synthetic.sample_sizes(NAMES)}
    crossed = {"/".join(cells[0]): synthetic.crossed(NAMES)}
    planted = {"organism": synthetic.recovery({"snip": 0.8})}
    gathered = [tmp_path / "iou.parquet", tmp_path / "sizes.parquet"]
    write_table(gathered[0], iou, IOU)
    write_table(gathered[1], sizes, REGION_SIZES)
    beside = {
        kind: {key: written(tmp_path, {kind: table}, contract)[kind] for key, table in given.items()}
        for kind, given, contract in (
            ("pools", pools, POOLS),
            ("blocks", blocks, SAMPLE_SIZES),
            ("crossed", crossed, CROSSED),
            ("recovery", planted, RECOVERY),
        )
    }
    load_script("write_verdict")(*gathered, NAMES, beside, [], [], out["tsv"])
    pair_rows = iou.filter([row["level"] == "model" and row["k"] == 2 for row in iou.to_pylist()])
    same(out["tsv"], measure(pair_rows, sizes, NAMES, pools, blocks, planted, crossed=crossed))
    beside = read_tsv(out["tsv"]).set_index("refinement")[["pool_k", "block_n"]].notna()
    assert json.loads(beside.to_json(orient="split"))["data"] == [[True, False], [False, True]]


def test_compare_studies_reads_two_folders_and_writes_the_page_and_its_tables(tmp_path):
    """The other study has one region file less, other weights, other code, and an IoU that is lower by 0.125."""
    _, here, sizes = synthetic.gathered([(*PLACE, "raw")], 3)
    frame = here.to_pandas()
    frame["iou"] -= 0.125
    tables = {"there": pa.Table.from_pandas(frame, here.schema, preserve_index=False), "here": here}
    files = {}
    for side, iou in tables.items():
        folder = tmp_path / side
        files[side] = {key: [folder / key] for key in ("iou", "verdict")}
        write_table(folder / "iou", iou, IOU)
        save_tsv(folder / "verdict", measure(iou, sizes, NAMES))
        places = ["/".join((*PLACE[:2], name, PLACE[2], "raw.safetensors")) for name in sorted(NAMES)]
        files[side]["regions"] = [folder / place for place in places[side == "there" :]]
        made = {"method": "snip", "granularity": "weight", "scope": "row", "fraction": 0.05, "code": side}
        for path in files[side]["regions"]:
            write_region(path, Region.pack({"layers.0.q": np.ones((2, 8), bool)}, made))
        files[side]["weights"] = [folder / "organism/model.safetensors"]
        save_text(files[side]["weights"][0], side)
    out = [tmp_path / f"before.{kind}" for kind in ("html", "tsv", "answers.tsv")]
    load_script("compare_studies")(files["there"], files["here"], "before", *out)
    iou = read_tsv(out[1]).set_index("measure").loc["iou"]
    assert iou["difference"] == pytest.approx(0.125) and iou["comparable"] == "yes"
    assert iou["differs"] == "weights of organism; code"
    assert set(read_tsv(out[2])["changed"]) <= {"yes", "no"} and len(read_tsv(out[2])) > 0
    assert "What changed: before and this study" in out[0].read_text()


def test_draw_ladders_shows_the_table_beside_it(tmp_path, out):
    verdicts = verdicts_of(methods=("snip",))
    save_tsv(tmp_path / "verdict.tsv", verdicts)
    load_script("draw_ladders")(tmp_path / "verdict.tsv", "gemma", ["snip"], [], out["svg"], out["tsv"])
    same(out["tsv"], ladder_rows(verdicts, "gemma"))
    assert "gemma" in out["svg"].read_text() and "llama" not in out["svg"].read_text()


@pytest.mark.slow
def test_write_index_puts_the_report_on_one_page_without_a_prompt(tmp_path):
    report = SyntheticReport(tmp_path / "results")
    load_script("write_index")(**report.inputs, html=report.page)
    page = report.page.read_text()
    assert SECRET not in page
    for word in (
        "4711",
        "there/",
        "small-q8: the weights of small.gguf, dequantised (23 Q8_0 tensors)",
        "0:01:05",
    ):
        assert word in page
    assert [link for link in links_of(page) if not (report.page.parent / link).exists()] == ["../there/"]
