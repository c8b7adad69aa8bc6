"""From regions and answers on disk to the tables, the figure and the page on what regions do."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from safety_regions.behaviour.effects import wilson
from safety_regions.formats.contracts import (
    ABLATED,
    ABLATION,
    CONSTRAINT,
    EFFECTS,
    OVERLAP,
    RESPONSES,
    TRANSFER,
)
from safety_regions.formats.expand import expand_region
from safety_regions.formats.parquet import read_metadata, read_table, write_table
from safety_regions.formats.region import read_region, write_region
from safety_regions.model.loading import load_backbone
from tests.behaviour.regions import some_units
from tests.behaviour.responses import ROLES, answered
from tests.scripts.loading import load_script
from tests.tiny import byte_tokenizer, tiny_backbone, tiny_model

pytestmark = pytest.mark.slow

CELL = {"backbone": "tiny", "method": "snip", "selection": "row-0.05", "refinement": "raw"}
PLAN = {
    "operations": {"base": [1.0], "zero": [1.0]},
    "controls": ["random", "utility", "other"],
    "draws": 2,
    "generated": 1,
}
SETS = ("fraud", "weapons")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of a study: measured regions of two sets, their tables, the figure and the page."""
    folder = tmp_path_factory.mktemp("behaviour")
    tiny_model("llama").save_pretrained(folder / "tiny")
    byte_tokenizer().save_pretrained(folder / "tiny")
    checkpoint = sorted((folder / "tiny").iterdir())
    base = {where: weight.detach().clone() for where, weight in tiny_backbone("llama", seed=1).weights()}
    save_file(base, folder / "base.safetensors")
    responses = []
    for name in ROLES:
        table = pa.concat_tables([answered(4, split)[name] for split in ("identify", "evaluate")])
        responses.append(folder / f"{name}.parquet")
        write_table(responses[-1], table, RESPONSES)
    regions = {}
    for seed, name in enumerate(ROLES):
        regions[name] = str(folder / f"{name}.safetensors")
        write_region(regions[name], some_units(tiny_backbone("llama"), scope="row", seed=seed))
    arms, judged = {}, []
    rules = {"template": None, "lead": "", "longest": 8, "values": {"yes": 1, "no": 0}}
    for name in SETS:
        arms[name] = folder / f"{name}.arms.parquet"
        others = {other: regions[other] for other in SETS if other != name}
        load_script("ablate")(
            regions[name], {"everyday": regions["everyday"]}, others, responses, ROLES, checkpoint, [],
            [folder / "base.safetensors"], [], {"template": "native"}, "llama", PLAN, 4, 4, CELL | {"name": name},
            folder / "journal", [arms[name], folder / f"{name}.answers.parquet"],
        )  # fmt: skip
        for judge in ("tiny", "small"):
            judged.append(folder / f"{name}.{judge}.judged.parquet")
            load_script("judge_answers")(
                folder / f"{name}.answers.parquet", responses, {"template": "native"}, rules, checkpoint, judge, 4,
                judged[-1],
            )  # fmt: skip
    pair = {c.name: None for c in OVERLAP.columns} | {
        "combination": "fraud & weapons", "k": 2, "level": "model", "intersection": 1, "union": 2, "iou": 0.5,
        "smallest": 1, "largest": 1, "chance": 0.1,
    }  # fmt: skip

    write_table(folder / "overlap.parquet", pa.Table.from_pylist([pair], OVERLAP.schema), OVERLAP)
    tables = {
        kind: folder / f"{kind}.parquet" for kind in ("ablation", "effects", "transfer", "transfer_pairs")
    }
    load_script("compare_effects")(arms, judged[::-1], folder / "overlap.parquet", CELL, **tables)
    everything = {kind: folder / f"all-{kind}.parquet" for kind in tables}
    load_script("gather_behaviour")({kind: [path] for kind, path in tables.items()}, everything)
    load_script("draw_behaviour")([tables["effects"]], "tiny", folder / "figure.svg", folder / "figure.tsv")
    load_script("draw_dose_response")(
        [tables["effects"]], [tables["ablation"]], "tiny", folder / "doses.svg", folder / "doses.tsv"
    )
    load_script("export_model")(
        regions["fraud"], checkpoint, [], [folder / "base.safetensors"], [], {"template": "native"}, "llama", "base",
        1.0, CELL | {"name": "fraud"}, folder / "exported",
    )  # fmt: skip
    load_script("draw_transfer")(
        [tables["transfer_pairs"]],
        [tables["transfer"]],
        "tiny",
        folder / "transfer.svg",
        folder / "transfer.tsv",
    )
    plan = {
        "name": "plain", "attack": "ordinary", "start": "aligned", "steps": 2, "batch": 4, "every": 1,
        "learning_rates": [0.01, 0.02],
        "longest": 200, "arms": ["freeze", "rewind"], "restore": {}, "controls": ["random"], "draws": 1,
    }  # fmt: skip
    load_script("constrain")(
        regions["fraud"], [], responses, ROLES, checkpoint, [], [folder / "base.safetensors"], {"template": "native"},
        plan, 0, 4, 4, CELL | {"name": "fraud"}, folder / "journal", folder / "constraint.parquet",
    )  # fmt: skip
    load_script("draw_constraint")(
        [folder / "constraint.parquet"], "tiny", folder / "course.svg", folder / "course.tsv"
    )
    load_script("write_behaviour")(
        [everything["ablation"]], [everything["effects"]], [everything["transfer"]], [folder / "constraint.parquet"],
        folder / "page.html", folder / "page.tsv", folder / "constraint.tsv", folder / "measures.tsv",
    )  # fmt: skip
    return folder


def test_judged_values_stand_beside_the_other_measures(study):
    effects = read_table(study / "effects.parquet", EFFECTS).to_pandas()
    judged = effects[effects["measure"] == "harm-tiny"]
    assert set(judged["evaluated"]) == {"fraud", "weapons", "harmful"}
    assert judged["changed"].between(0, 1).all()
    for name in SETS:  # whatever the order of the tables
        table = read_table(study / f"{name}.tiny.judged.parquet", ABLATED).to_pandas()
        own = table[(table["control"] == "region") & (table["evaluated"] == name)]
        rows = judged[
            (judged["name"] == name) & (judged["evaluated"] == name) & (judged["against"] == "none")
        ]
        for row in rows.to_dict("records"):
            same = own[(own["operation"] == row["operation"]) & (own["dose"] == row["dose"])]
            assert row["changed"] == pytest.approx(same["value"].mean())
    assert read_metadata(study / "fraud.tiny.judged.parquet")["judge_rules"]["values"] == {"yes": 1, "no": 0}


def test_measurements_say_what_was_measured(study):
    metadata = read_metadata(study / "fraud.arms.parquet")
    assert (metadata["backbone"], metadata["name"], metadata["plan"], metadata["roles"]) == (
        "tiny",
        "fraud",
        PLAN,
        ROLES,
    )
    assert read_table(study / "fraud.arms.parquet", ABLATED).num_rows > 0


def test_means_are_those_of_the_prompts(study):
    measured = read_table(study / "fraud.arms.parquet", ABLATED).to_pandas()
    means = read_table(study / "ablation.parquet", ABLATION).to_pandas()
    arm = {"operation": "base", "control": "random", "draw": 2, "measure": "refusal_log_odds"}
    chosen = measured[np.logical_and.reduce([measured[key] == value for key, value in arm.items()])]
    row = means[np.logical_and.reduce([means[key] == value for key, value in arm.items()])]
    row = row[(row["name"] == "fraud") & (row["evaluated"] == "harmful")].iloc[0]
    harmful = chosen[chosen["evaluated"] != "everyday"]
    assert row["value"] == pytest.approx(harmful["value"].mean())
    assert row["n"] == len(harmful) == 8


def test_rates_have_wilson_intervals_and_other_measures_none(study):
    means = read_table(study / "ablation.parquet", ABLATION).to_pandas()
    rates = means[means["measure"].isin(["refused", "incoherent"])]
    for row in rates.to_dict("records"):
        expected = wilson(round(row["value"] * row["n"]), row["n"])
        assert (row["value"], row["low"], row["high"]) == pytest.approx(expected)
    assert len(rates) and means.drop(rates.index)[["low", "high"]].isna().all(axis=None)


def test_effects_have_rows_for_each_set_and_for_their_mean(study):
    effects = read_table(study / "effects.parquet", EFFECTS).to_pandas()
    assert set(effects["name"]) == {*SETS, "all"}
    assert set(effects["against"]) == {"none", "random", "utility", "other"}
    joint = effects[(effects["name"] == "all") & (effects["against"] == "other")]
    assert len(joint) > 0
    drawn = effects[(effects["against"] == "random") & (effects["measure"] == "refusal_log_odds")]
    assert (drawn["draws"] == 2).all()
    assert drawn["p"].between(1 / 3 - 1e-9, 1).all()


def test_transfer_has_a_row_for_each_operation_and_measure(study):
    transfer = read_table(study / "transfer.parquet", TRANSFER).to_pandas()
    assert set(transfer["operation"]) == {"base", "zero"}
    assert (transfer["sets"] == 2).all()


def test_all_cells_are_gathered(study):
    for kind, contract in (("ablation", ABLATION), ("effects", EFFECTS), ("transfer", TRANSFER)):
        assert read_table(study / f"all-{kind}.parquet", contract).equals(
            read_table(study / f"{kind}.parquet", contract)
        )


def test_fine_tuned_models_have_a_row_for_each_step_and_measure(study):
    table = read_table(study / "constraint.parquet", CONSTRAINT).to_pandas()
    assert set(table["learning_rate"]) == {0.01, 0.02}
    assert set(zip(table["arm"], table["control"], strict=True)) == {
        ("free", "none"), ("freeze", "region"), ("freeze", "random"), ("rewind", "region"), ("rewind", "random"),
    }  # fmt: skip
    assert set(table[table["arm"] == "free"]["step"]) == {0, 1, 2}
    page = (study / "page.html").read_text()
    assert "freeze, rate 0.01: nothing can be said of 1 seeds." in page
    assert "plan plain" in page
    assert (study / "course.svg").stat().st_size > 1000


def test_nothing_is_claimed_from_two_draws(study):
    page = (study / "page.html").read_text()
    assert "tiny / snip / row-0.05 / raw" in page
    assert "larger than that of every control" not in page
    assert (study / "figure.svg").stat().st_size > 1000


def test_an_exported_model_loads_and_is_reset_inside_the_region_only(study):
    exported = load_backbone({"template": "native"}, sorted((study / "exported").iterdir()))
    region = expand_region(read_region(study / "fraud.safetensors"), exported.shapes)
    aligned, base = dict(tiny_backbone("llama").weights()), load_file(study / "base.safetensors")
    for where, weight in exported.weights():
        inside = torch.from_numpy(region.flags(where))
        assert torch.equal(weight, torch.where(inside, base[where], aligned[where]))
    assert {p.name for p in (study / "exported").iterdir()} >= {"config.json", "tokenizer.json"}
    said = json.loads((study / "exported" / "changed.json").read_text())
    assert (said["operation"], said["dose"], said["name"]) == ("base", 1.0, "fraud")
    assert 0 < said["n_changed"] <= region.n_selected
