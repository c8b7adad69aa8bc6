"""Every benchmark must run at a toy size and pass its own checks of the results; no time is asserted."""

import importlib

import pytest
import torch

from bench import chat, overlaps, snip
from bench.__main__ import QUESTIONS
from bench.masks import shapes, write_masks
from bench.measure import HEAD, MIB, Cost, Figure, alone, require, row
from safety_regions.formats.region import read_region, write_region
from safety_regions.formats.region_file import RegionFile

pytestmark = pytest.mark.slow


def _here(prepare, run, *arguments) -> Cost:
    """Replace `alone`, which starts a process and imports torch in it for every implementation."""
    run(prepare(*arguments))
    return Cost(wall=1, cpu=1, peak=MIB, whole=MIB)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_is_answered(name, monkeypatch):
    monkeypatch.setattr(snip, "alone", _here)
    monkeypatch.setattr(chat, "alone", _here)
    question = importlib.import_module(f"bench.{name}")
    figures = list(question.run(question.TOY))
    skipped = [figure.what for figure in figures if figure.value is None]
    assert all("skipped" in what for what in skipped) and len(skipped) < len(figures)
    assert all(figure.value >= 0 for figure in figures if figure.what not in skipped)
    assert all(row(figure).count(" | ") == HEAD.splitlines()[0].count(" | ") for figure in figures)
    assert len({figure.what for figure in figures}) == len(figures)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is available, so the benchmark would run")
def test_without_a_gpu_the_bench_says_so():
    gpu = importlib.import_module("bench.gpu")
    (figure,) = gpu.run(gpu.FULL)
    assert figure.value is None and "skipped" in figure.what


def test_snip_contenders_that_differ_are_caught(monkeypatch):
    gather = snip.snip.gather

    def half(*arguments):
        evidence = gather(*arguments)
        where = next(iter(evidence))
        return evidence | {where: evidence[where] / 2}

    case = snip.prepare(snip.TOY, 2)
    assert snip.compare(case) < snip.TOLERANCE
    monkeypatch.setattr(snip.snip, "gather", half)
    with pytest.raises(ValueError, match="differ"):
        snip.compare(case)


def test_overlaps_that_are_wrong_are_caught(tmp_path, monkeypatch):
    paths = write_masks(tmp_path, 3, 5000, 1, 0.1)
    overlaps.check(paths)
    other = read_region(paths["r0"])
    other.masks["layers.0.q"][:] = 0
    write_region(tmp_path / "other.safetensors", other)
    computed = overlaps.overlaps
    monkeypatch.setattr(overlaps, "overlaps", lambda p: computed(p | {"r0": tmp_path / "other.safetensors"}))
    with pytest.raises(ValueError, match="overlap of r0"):
        overlaps.check(paths)


def test_synthetic_masks_have_their_density_and_size(tmp_path):
    paths = write_masks(tmp_path, 2, 10**6, 2, 0.05)
    for path in paths.values():
        file = RegionFile(path)
        n, selected = sum(file.available.values()), sum(file.selected.values())
        assert abs(n - 1e6) < 0.05e6 and n == sum(rows * cols for rows, cols in shapes(10**6, 2).values())
        assert abs(selected - 0.05 * n) < 5 * (n * 0.05 * 0.95) ** 0.5 + 0.001 * n


def _nothing() -> None:
    return None


def _take(_nothing: None) -> None:
    block = bytearray(64 * MIB)
    block[:: 1 << 10] = b"x" * (64 << 10)


def test_memory_of_a_process_of_its_own():
    cost = alone(_nothing, _take)
    assert 60 * MIB < cost.peak < 96 * MIB and cost.whole > cost.peak


def test_targets_say_whether_they_were_met():
    assert Figure("a", 3, "x", at_least=2).target == ">= 2: met"
    assert Figure("a", 3, "x", at_most=2).target == "<= 2: MISSED"
    with pytest.raises(ValueError, match="wrong results: b"):
        require(False, "b")
