"""Correlations of sampled scores must equal their definition, and must not depend on the number of prompts."""

from itertools import product
from math import sqrt

import numpy as np
import pytest

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import OVERLAP
from safety_regions.formats.parquet import conform
from safety_regions.formats.region import Region, write_region
from safety_regions.overlap.correlation import COLUMNS, correlations
from safety_regions.overlap.frame import Frame, frame_overlap
from safety_regions.overlap.membership import count_membership
from safety_regions.scoring.sample import sampled_units
from tests.overlap.memberships import draw_regions, write_regions
from tests.overlap.test_iou import by_key
from tests.regions.small_regions import METADATA, write_scores

SETS, UTILITY = ("a", "b"), ("u",)
SUFFIXES = (".1", ".2", ".1~1r", ".1~2r")
SHAPES = {"layers.0.q": (6, 5), "layers.0.up": (3, 20), "layers.1.q": (8, 5), "layers.1.up": (4, 30)}
NAMES = [name + suffix for name in (*SETS, *UTILITY) for suffix in SUFFIXES]


def in_sample(shapes, take):
    """Return address -> which units are sampled; another share of every address."""
    rng = np.random.default_rng(9)
    return {where: rng.random(shape) < take for where, shape in shapes.items()}


def drawn(folder, zeros=0.0):
    """Write samples of scores that correlate, with a factor for each row; return (paths, scores, sampled)."""
    rng = np.random.default_rng(3)
    shared = {where: rng.normal(size=shape) for where, shape in SHAPES.items()}
    scale = {where: rng.normal(scale=5, size=(shape[0], 1)) for where, shape in SHAPES.items()}
    sampled, scores = in_sample(SHAPES, 0.8), {}
    for name in NAMES:
        logs = {w: shared[w] + scale[w] + rng.normal(size=shape) for w, shape in SHAPES.items()}
        scores[name] = {w: np.exp(v) * (rng.random(v.shape) >= zeros) for w, v in logs.items()}
    paths = {
        name: write_scores(folder / f"{name}.sample", "weight", found, {}, sampled)
        for name, found in scores.items()
    }
    return paths, scores, sampled


def literal_r(x, y, used, scope):
    """Return Pearson's r of two logs, unit by unit: centred in the scope, each weighted by the units it stands for."""
    groups = {}
    for where, shape in SHAPES.items():
        layer, n = where.split(".")[1], np.prod(shape)
        for i, j in np.argwhere(used[where]):
            key = {"row": (where, i), "matrix": where, "layer": layer, "global": 0}[scope]
            stands = n / SAMPLED[where].sum()
            groups.setdefault(key, []).append((stands, np.log(x[where][i, j]), np.log(y[where][i, j])))
    xx = yy = xy = 0.0
    for rows in groups.values():
        total = sum(w for w, _, _ in rows)
        mx, my = (sum(w * v[i] for w, *v in rows) / total for i in (0, 1))
        xx += sum(w * (a - mx) ** 2 for w, a, _ in rows)
        yy += sum(w * (b - my) ** 2 for w, _, b in rows)
        xy += sum(w * (a - mx) * (b - my) for w, a, b in rows)
    return xy / sqrt(xx * yy)


SAMPLED = in_sample(SHAPES, 0.8)


def overlap_of(folder, scope="row"):
    """Return an overlap table of all pairs; the regions do not matter."""
    regions = draw_regions(1, 3, "weight", scope, SHAPES)
    paths = write_regions(folder, dict(zip((*SETS, *UTILITY), regions.values(), strict=True)))
    return frame_overlap(count_membership({n: paths[n] for n in SETS}), paths, Frame(UTILITY))


@pytest.mark.parametrize("scope", ["row", "matrix", "layer", "global"])
@pytest.mark.parametrize("refined, zeros", [(False, 0.0), (True, 0.0), (False, 0.05)])
def test_every_number_is_its_definition(tmp_path, scope, refined, zeros):
    samples, scores, sampled = drawn(tmp_path, zeros)
    overlap = overlap_of(tmp_path, scope)
    flags = {w: np.random.default_rng(5).random(shape) < 0.3 for w, shape in SHAPES.items()}
    write_region(tmp_path / "removed", Region.pack(flags, METADATA))
    found = correlations(overlap, samples, scope, tmp_path / "removed" if refined else None)
    left = {w: sampled[w] & ~flags[w] if refined else sampled[w] for w in SHAPES}
    rows = 0
    for i, row in enumerate(overlap.to_pylist()):
        if row["level"] != "model":
            assert all(np.isnan(found[name][i]) for name in COLUMNS)
            continue
        a, b = row["combination"].split(" & ")

        def r(x, y, *others):
            positive = {w: np.all([scores[n][w] > 0 for n in (x, y, *others)], axis=0) for w in SHAPES}
            return literal_r(scores[x], scores[y], {w: left[w] & positive[w] for w in SHAPES}, scope)

        four = (f"{a}.1", f"{a}.2", f"{b}.1", f"{b}.2")
        pair = (r(f"{a}.1", f"{b}.1", *four) + r(f"{a}.2", f"{b}.2", *four)) / 2
        reliability = sqrt(r(f"{a}.1", f"{a}.2", *four) * r(f"{b}.1", f"{b}.2", *four))
        floor = np.mean([r(f"{a}.1~{s}r", f"{b}.1~{s}r") for s in (1, 2)]) / reliability
        literal = (pair, reliability, pair / reliability, floor)
        assert [found[name][i] for name in COLUMNS] == pytest.approx(literal, rel=1e-5)
        rows += 1
    assert rows == 3


def test_a_factor_on_all_scores_of_a_row_changes_nothing(tmp_path):
    samples, scores, sampled = drawn(tmp_path)
    overlap = overlap_of(tmp_path)
    before = correlations(overlap, samples, "row")
    rng = np.random.default_rng(0)
    for name in NAMES:
        scaled = {w: v * rng.lognormal(sigma=3, size=(len(v), 1)) for w, v in scores[name].items()}
        write_scores(samples[name], "weight", scaled, {}, sampled)
    after = correlations(overlap, samples, "row")
    for name in COLUMNS:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-4)


@pytest.mark.parametrize("case", ["half are zero", "constant", "unreliable", "opposed"])
def test_what_is_not_known_is_null(tmp_path, case):
    samples, scores, sampled = drawn(tmp_path)
    overlap = overlap_of(tmp_path)
    rng = np.random.default_rng(2)
    for w, shape in SHAPES.items():
        own = {
            "half are zero": (rng.random(shape) < 0.4) * scores["a.1"][w],
            "constant": np.full(shape, 0.1),
            # Halves of a correlate by less than three standard errors, 0.18, of these 280 units.
            "unreliable": rng.lognormal(sigma=1, size=shape),
            "opposed": 1 / scores["a.2"][w],
        }
        scores["a.1"][w] = own[case]
    write_scores(samples["a.1"], "weight", scores["a.1"], {}, sampled)
    found = correlations(overlap, samples, "row")
    for i, row in enumerate(overlap.to_pylist()):
        if row["level"] == "model":
            touched = "a" in row["combination"].split(" & ")
            assert np.isnan(found["disattenuated"][i]) == np.isnan(found["disattenuated_floor"][i]) == touched
            known = {"half are zero": False, "constant": False}.get(case, True)
            assert np.isnan(found["correlation"][i]) == (touched and not known)


def test_samples_of_other_units_are_refused(tmp_path):
    samples, scores, sampled = drawn(tmp_path)
    overlap = overlap_of(tmp_path)
    other = {w: mask & (np.arange(mask.size).reshape(mask.shape) != 3) for w, mask in sampled.items()}
    write_scores(samples["b.2"], "weight", scores["b.2"], {}, other)
    with pytest.raises(StudyError, match="other units"):
        correlations(overlap, samples, "row")


ROWS, COLUMNS_OF_ROW, BEST = 80, 600, 30
PLACES = [f"layers.{layer}.q" for layer in range(6)]
SHAPE = (ROWS * len(PLACES), COLUMNS_OF_ROW)


def by_address(values):
    return dict(zip(PLACES, np.split(values, len(PLACES)), strict=True))


def best_of_rows(scores):
    return by_address(scores >= np.partition(scores, -BEST, axis=1)[:, [-BEST]])


def study_of(folder, n, seed, weighted=True):
    """Write a study of two sets: |W| times lognormal statistics, half of their variance shared; n prompts in a half.

    Return the row of the pair in the overlap table.
    """
    rng = np.random.default_rng(seed)
    weight = np.log(np.abs(rng.normal(size=SHAPE))) if weighted else np.zeros(SHAPE)
    shared, taken = rng.normal(size=SHAPE), by_address(np.zeros(SHAPE, bool))
    for where, mask in taken.items():
        mask.ravel()[sampled_units(where, mask.shape)] = True
    regions, samples = {}, {}
    for name in SETS:
        truth = sqrt(0.5) * shared + sqrt(0.5) * rng.normal(size=SHAPE)
        halves = {half: truth + rng.normal(size=SHAPE) * sqrt(25 / n) for half in (".1", ".2")}
        logs = {name + half: weight + evidence for half, evidence in halves.items()}
        for seed_of in (1, 2):
            logs[f"{name}.1~{seed_of}r"] = weight + rng.permuted(halves[".1"], axis=1)
            logs[f"{name}~{seed_of}r"] = logs[f"{name}.1~{seed_of}r"]
        logs[name] = weight + truth
        for who, log in logs.items():
            regions[who] = Region.pack(best_of_rows(log), {**METADATA, "scope": "row"})
            if "." in who:
                scored = by_address(np.exp(log))
                samples[who] = write_scores(folder / f"{who}.s", "weight", scored, {}, taken)
    paths = write_regions(folder, regions)
    counted = count_membership({name: paths[name] for name in SETS})
    frame = Frame((), 2, "r", False, halves=True)
    table = conform(frame_overlap(counted, paths, frame, samples), OVERLAP)
    return by_key(table)["a & b", 2, "model", None, None]


@pytest.mark.slow
def test_the_corrected_correlation_does_not_depend_on_n_and_the_normalised_overlap_does(tmp_path):
    """Two sets share half of the variance of their log statistics, whatever the number of prompts."""
    ns = (12, 50, 200, 800)
    rows = [study_of(tmp_path, n, seed) for seed, n in enumerate(ns)]
    raw, corrected, floor, normalised = (
        np.array([row[name] for row in rows])
        for name in ("correlation", "disattenuated", "disattenuated_floor", "normalised")
    )
    # Variance of log |W| of a normal weight is pi^2 / 8; that of a true log statistic is 1.
    weights = np.pi**2 / 8
    assert corrected == pytest.approx(np.full(4, (weights + 0.5) / (weights + 1)), abs=0.03)
    assert floor == pytest.approx(np.full(4, weights / (weights + 1)), abs=0.04)
    assert (corrected - floor) / (1 - floor) == pytest.approx(np.full(4, 0.5), abs=0.08)
    assert normalised[0] > 0.36 and normalised[-1] < 0.27 and (np.diff(normalised) < 0).all()
    assert raw[0] < 0.6 * corrected[0], "at few prompts, the correlation itself is low"


@pytest.mark.slow
def test_the_corrected_correlation_of_statistics_alone_is_what_they_share(tmp_path):
    for n, seed in product((12, 200), (0, 1)):
        row = study_of(tmp_path, n, seed, weighted=False)
        assert row["disattenuated"] == pytest.approx(0.5, abs=0.08 if n == 12 else 0.04)
        assert abs(row["disattenuated_floor"]) < 0.08
