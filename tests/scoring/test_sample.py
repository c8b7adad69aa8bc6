"""The sample of an address is fixed, even over its units, and stored with the scores that the method gave them."""

from math import prod

import numpy as np
import pytest
import torch

from safety_regions.formats.score_file import ScoreFile
from safety_regions.methods import load_method, wanda
from safety_regions.scoring.run import Job, score, write_scores
from safety_regions.scoring.sample import ROWS, UNITS, sample_mask, sampled_units
from safety_regions.scoring.samples import Chosen, Samples, encode_samples
from safety_regions.units.names import parse_name
from tests.methods.test_weights import WANDA
from tests.tiny import tiny_backbone

SHAPES = [(3, 5), (64, 64), (200, 300), (2048, 4096), (8, 4096), (4096, 8), (2, 9000), (100,), (14336,)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sample_is_fixed_and_has_as_many_units_of_each_row(shape):
    units = sampled_units("layers.3.q", shape)
    assert np.array_equal(units, sampled_units("layers.3.q", shape)) and units.dtype == np.int64
    assert (np.diff(units) > 0).all() and units[0] >= 0 and units[-1] < prod(shape)
    assert UNITS / 2 < len(units) <= UNITS or len(units) == prod(shape)
    if len(shape) == 2:
        per_row = np.bincount(units // shape[1])
        assert len(set(per_row[per_row > 0])) == 1 and (per_row > 0).sum() >= min(ROWS, shape[0])
    if len(units) < prod(shape):
        assert not np.array_equal(units, sampled_units("layers.4.q", shape))
    assert np.array_equal(np.flatnonzero(sample_mask("layers.3.q", torch.zeros(shape))), units)


def test_every_row_and_column_is_as_likely_to_be_sampled():
    shape, addresses = (80, 100), 300
    counts = sum(
        np.bincount(sampled_units(f"layers.{i}.q", shape), minlength=8000) for i in range(addresses)
    ).reshape(shape)
    taken = ROWS / 80  # a row is drawn or not, so counts of rows spread most
    error = np.sqrt((1 - taken) / taken / addresses)
    for axis in (0, 1):
        each = counts.sum(axis)
        assert abs(each / each.mean() - 1).max() < 4.5 * error


def test_the_sample_has_the_scores_of_the_method(tmp_path):
    backbone = tiny_backbone("llama")
    rows = [{"prompt_id": f"a/{i}", "prompt": text, "response": "No."} for i, text in enumerate("xyz")]
    job = Job(load_method("wanda"), WANDA, {"row": 0.1}, batch_size=2)
    names = [parse_name(name) for name in ("a", "a~1r")]
    for name, found in zip(names, score(backbone, names, job, Chosen(rows, {})), strict=True):
        write_scores(tmp_path / str(name), tmp_path / f"{name}.sample", found, {"backbone": "tiny"})
    plain, shuffled = (ScoreFile(tmp_path / f"{name}.sample") for name in names)
    encoded = Samples(encode_samples(backbone, rows), batch_size=2)
    best, evidence = ScoreFile(tmp_path / "a"), wanda.gather(backbone, encoded, WANDA)
    assert (plain.kept, best.kept, plain.metadata["name"]) == ({}, {"row": 0.1}, "a")
    for where, scores in wanda.scores(backbone, evidence, WANDA):
        assert np.array_equal(plain.units(where), sampled_units(where, tuple(scores.shape)))
        assert plain.scores(where) == pytest.approx(scores.numpy().ravel()[plain.units(where)])
        assert np.array_equal(plain.units(where), shuffled.units(where))
        assert not np.array_equal(plain.scores(where), shuffled.scores(where))
        assert len(best.units(where)) < len(plain.units(where))
