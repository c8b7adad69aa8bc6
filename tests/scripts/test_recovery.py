"""In the recovery table, an oracle's region and scores find the planted region, and every row keeps its labels."""

import numpy as np
import pytest

from safety_regions.formats.contracts import RECOVERY
from safety_regions.formats.parquet import read_metadata, read_table
from safety_regions.formats.region import Region, write_region
from safety_regions.overlap.recovery import recovery_of_region
from safety_regions.regions.refine import subtract_region
from tests.overlap.test_recovery import SHAPES, keep_all, planted
from tests.regions.small_regions import METADATA, write_scores
from tests.scripts.loading import load_script


def test_measure_recovery_joins_regions_with_the_scores_they_come_from(tmp_path):
    truth, scores = planted()
    blind = {where: np.zeros(shape, np.float32) for where, shape in SHAPES.items()}
    more = {"weight_shapes": {where: list(shape) for where, shape in SHAPES.items()}}
    given, shown = [], []
    for method, values in (("wanda", scores), ("random", blind)):
        path = write_scores(tmp_path / method, "weight", values, {"matrix": 1.0}, keep_all(values), **more)
        given.append(({"method": method, "name": "a"}, path))
    for method, flags in (("random", {w: ~f for w, f in truth.items()}), ("wanda", truth)):
        path = tmp_path / f"{method}.safetensors"
        write_region(path, Region.pack(flags, METADATA))
        labels = {"method": method, "granularity": "weight", "name": "a"}
        shown.append(({**labels, "selection": "matrix-0.25", "refinement": "raw"}, path))
    write_region(tmp_path / "truth.safetensors", Region.pack(truth, METADATA))
    utility = Region.pack(
        {w: f & (np.arange(f.size).reshape(f.shape) % 2 == 0) for w, f in truth.items()}, METADATA
    )
    write_region(tmp_path / "utility.safetensors", utility)
    write_region(tmp_path / "refined.safetensors", subtract_region(Region.pack(truth, METADATA), utility))
    shown.append(
        (shown[-1][0] | {"refinement": "minus-plain"}, tmp_path / "refined.safetensors"),
    )
    removed = [
        ({"method": "wanda", "selection": "matrix-0.25", "name": "plain"}, tmp_path / "utility.safetensors")
    ]
    out = tmp_path / "recovery.parquet"
    truths = {"organism": tmp_path / "truth.safetensors", "other": tmp_path / "elsewhere.safetensors"}
    write_region(truths["other"], Region.pack({w: ~f for w, f in truth.items()}, METADATA))
    load_script("measure_recovery")(truths, given, shown, removed, [], "llama", "organism", out)
    every = read_table(out, RECOVERY).to_pylist()
    rows, others = every[:3], every[3:]
    assert [row["truth"] for row in every] == ["organism"] * 3 + ["other"] * 3
    assert (
        [row["method"] for row in rows] == [row["method"] for row in others] == ["random", "wanda", "wanda"]
    )
    assert [(row["iou"], row["auroc"]) for row in others[:2]] == [(1, 0.5), (0, pytest.approx(0))]
    assert all(row["pooled_auroc"] is None for row in every), "weights are planted"
    assert [(row["iou"], row["auroc"]) for row in rows[:2]] == [
        (0, pytest.approx(0.5)),
        (1, pytest.approx(1)),
    ]
    rest = {where: ~utility.flags(where) for where in SHAPES}
    refined = {where: truth[where] & rest[where] for where in SHAPES}
    assert (
        rows[2]["chance"] == recovery_of_region(refined, truth, "matrix", rest)["chance"] < rows[1]["chance"]
    )
    assert read_metadata(out)["organism"] == "organism"
