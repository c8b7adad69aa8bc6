"""A study with floors, ceilings, pools, sample sizes, crossed responses and label permutations runs to the end."""

from itertools import combinations

import pytest

from safety_regions.formats.contracts import CORES, CROSSED, LABELS, OVERLAP, POOLS, SAMPLE_SIZES
from safety_regions.formats.parquet import read_metadata, read_table
from safety_regions.formats.region import read_region
from tests.workflow.conftest import region_file

pytestmark = pytest.mark.slow

ASKED = {
    "floors": 2,
    "ceilings": True,
    "pools": {"orders": 1},
    "sample_sizes": {"sizes": [4], "blocks": 2},
    "crossed": True,
    "regroupings": 1,
    "label_permutations": 19,
    "refinements": ["raw"],
}


@pytest.fixture(scope="module")
def framed(finished, tmp_path_factory):
    """Run the finished tiny study with a third set, one method and all these options; return it and its plan."""
    import shutil

    from tests.workflow.conftest import Project

    copy = tmp_path_factory.mktemp("framed") / "project"
    shutil.copytree(finished.folder, copy, copy_function=shutil.copy2)
    project = Project(copy)
    config = project.config
    config["datasets"]["identification"] = ["one", "two", "three"]
    project.config = {**config, **ASKED, "methods": {"snip": {}}}
    planned = project.plan()
    project.run()
    return project, planned


def test_only_what_is_new_is_scored(framed):
    """New are one set, pools, blocks, crossed names and groups; halves and shuffles of a set share a job."""
    _, planned = framed
    assert planned["score_frame"] == 4, "of each set"
    pools = 2 + 1  # the first two and the last two of the order, and all three
    assert planned["score"] == 1 + 2 * pools + 3 * 3 + 3 * 2 + 3, (
        "each pool once more, with shuffled members, and the first block of each set"
    )
    assert planned["permute_labels"] == 3, "one job for each pair of sets"


def test_every_pair_has_its_frame(framed):
    project, _ = framed
    rows = read_table(project.folder / "results/overlap/tiny/snip/row-0.05/raw.parquet", OVERLAP).to_pylist()
    model = [row for row in rows if row["level"] == "model"]
    assert {row["between"] for row in model} == {"identification", "mixed"}
    assert len(model) == 4 + 3
    for row in model:
        assert row["n_smallest"] == row["n_largest"] == 9 and (row["shared"] is None) == (row["k"] > 2)
        assert row["chance"] < row["floor"] and row["floor_low"] <= row["floor"] <= row["floor_high"]
        assert row["floor"] < row["floor_marginals"] and row["half_floor"] > row["chance"]
        assert (row["ceiling"] is None) == (row["k"] > 2)
        assert (row["disattenuated"] is None) == (row["disattenuated_floor"] is None) == (row["k"] > 2)
        if row["k"] > 2 or row["between"] == "mixed":
            assert row["normalised_ordinary"] is None
        if row["k"] == 2:
            assert row["correlation"] == pytest.approx(row["disattenuated"] * row["reliability"])


def literal_iou(project, *names):
    """Return the IoU of two regions, counted bit by bit."""
    a, b = (read_region(region_file(project, f"tiny/snip/{name}/row-0.05/raw")).masks for name in names)
    both, either = (
        sum(int.from_bytes(f(a[w], b[w]).tobytes()).bit_count() for w in a)
        for f in (lambda x, y: x & y, lambda x, y: x | y)
    )
    return both / either


def test_a_floor_is_the_overlap_of_shuffled_regions(framed):
    project, _ = framed
    ious = [literal_iou(project, f"one~{seed}r", f"two~{seed}r") for seed in (1, 2)]
    overlap = read_table(
        project.folder / "results/overlap/tiny/snip/row-0.05/raw.parquet", OVERLAP
    ).to_pylist()
    row = next(r for r in overlap if r["combination"] == "one & two" and r["level"] == "model")
    assert row["floor"] == pytest.approx(sum(ious) / 2)


def test_shuffles_and_halves_say_who_they_are(framed):
    project, _ = framed
    for name, used in {
        "one.frame/one~2r": 9,
        "one.frame/one~1m": 9,
        "one.frame/one.1~2r": 4,
        "one.frame/one.1": 4,
        "one@4x2": 4,
        "one+three+two": 27,
        "one~1r+three~1r+two~1r": 27,
    }.items():
        metadata = read_metadata(project.folder / f"results/scores/tiny/snip/{name}.parquet")
        assert (metadata["name"], metadata["samples_used"]) == (name.rpartition("/")[2], used)


def test_pools_and_sample_sizes_are_tables(framed):
    project, _ = framed
    cell = project.folder / "results/overlap/tiny/snip/row-0.05/raw"
    pools = read_table(f"{cell}.pools.parquet", POOLS).to_pylist()
    assert [(p["k"], p["against"]) for p in pools] == [
        (k, a) for k in (1, 2) for a in ("next", "rest", "all")
    ]
    assert all(p["n_a"] == 9 * p["k"] for p in pools) and pools[-1]["n_b"] == 27
    # After the pool of two, the next pool is that of all three.
    assert pools[3]["iou"] == pools[5]["iou"] and pools[3]["shuffled"] == pools[5]["shuffled"]
    assert all(p["chance"] < p["shuffled"] < 1 and p["nested"] is False for p in pools)
    a, b = ("+".join(f"{name}~1r" for name in pools[0][side].split("+")) for side in "ab")
    assert pools[0]["shuffled"] == pytest.approx(literal_iou(project, a, b))
    sizes = read_table(f"{cell}.sample_sizes.parquet", SAMPLE_SIZES).to_pylist()
    kinds = [row["pair"] for row in sizes]
    assert [kinds.count(kind) for kind in ("sets", "blocks", "shuffled")] == [2 * 3, 3, 3]
    assert {row["n_a"] for row in sizes} == {4} and sizes[-1]["pair"] == "shuffled"
    assert sizes[-1]["iou"] == pytest.approx(literal_iou(project, sizes[-1]["a"], sizes[-1]["b"]))


def test_cores_compare_the_sets_with_shuffles_and_with_regrouped_prompts(framed):
    project, _ = framed
    rows = read_table(
        project.folder / "results/overlap/tiny/snip/row-0.05/raw.cores.parquet", CORES
    ).to_pylist()
    assert [(row["kind"], row["draw"], row["k"]) for row in rows] == [
        (kind, draw, k)
        for kind, draw in (("sets", 0), ("shuffled", 1), ("shuffled", 2), ("regrouped", 1))
        for k in (1, 2, 3)
    ]
    of_pairs = {row["kind"]: row["iou"] for row in rows if row["k"] == 2 and row["draw"] < 2}
    names = {"sets": ["one", "two", "three"], "shuffled": ["one~1r", "two~1r", "three~1r"]}
    names["regrouped"] = [f"one@3{x}+three@3{x}+two@3{x}" for x in ("", "x2", "x3")]
    for kind, of_kind in names.items():
        ious = [literal_iou(project, a, b) for a, b in combinations(of_kind, 2)]
        assert of_pairs[kind] == pytest.approx(sum(ious) / 3)
    used = [
        read_metadata(project.folder / f"results/scores/tiny/snip/{name}.parquet")["prompts_used"]
        for name in names["regrouped"]
    ]
    assert [len(ids) for ids in used] == [9, 9, 9] and len({i for ids in used for i in ids}) == 27


def test_crossed_responses_share_prompts_or_responses(framed):
    project, _ = framed
    cell = project.folder / "results/overlap/tiny/snip/row-0.05/raw.crossed.parquet"
    rows = read_table(cell, CROSSED).to_pylist()
    assert len(rows) == 2 * 6 and {row["n_b"] for row in rows} == {9}
    scores = project.folder / "results/scores/tiny/snip"
    crossed, one, two = (read_metadata(scores / f"{name}.parquet") for name in ("one^two", "one", "two"))
    assert (crossed["name"], crossed["samples_used"]) == ("one^two", 9)
    assert crossed["prompts_used"] == one["prompts_used"] != two["prompts_used"]
    assert crossed["response_tokens"] == two["response_tokens"]
    pairs = {(row["same"], row["a"], row["b"]): row["iou"] for row in rows}
    for a, b in (("one", "two"), ("two", "one")):
        assert pairs["prompts", a, f"{a}^{b}"] == literal_iou(project, a, f"{a}^{b}")
        assert pairs["responses", a, f"{b}^{a}"] == literal_iou(project, a, f"{b}^{a}") < 1


def test_labels_are_permuted_for_every_pair(framed):
    project, _ = framed
    place = project.folder / "results/overlap/tiny/snip"
    overlap = read_table(place / "row-0.05/raw.parquet", OVERLAP).to_pylist()
    for pair in ("one & three", "one & two", "three & two"):
        ious = read_table(place / "labels" / f"{pair.replace(' & ', '+')}.parquet", LABELS)["iou"].to_pylist()
        (row,) = [r for r in overlap if r["combination"] == pair and r["level"] == "model"]
        assert len(ious) == 19 and row["permuted_iou"] == pytest.approx(sum(ious) / 19)
        assert row["permuted_p"] == (1 + sum(iou <= row["iou"] for iou in ious)) / 20
    assert not [path for path in (place / "labels").iterdir() if path.is_dir()], "nothing temporary is left"


def test_asking_less_runs_no_score_again(framed):
    project, _ = framed
    project.config = {**project.config, "floors": 0, "ceilings": False}
    assert not {"score", "score_frame", "select_region", "select_frame"} & set(project.plan())
