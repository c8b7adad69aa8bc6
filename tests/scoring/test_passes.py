"""Passes over fewer layers, smaller batches and repeated attempts give the same scores as one whole pass."""

from itertools import pairwise

import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.methods import snip
from safety_regions.scoring import passes
from safety_regions.scoring.memory import Plan
from safety_regions.scoring.samples import Samples
from tests.methods.test_weights import SNIP, samples_of
from tests.peak_memory import peak_bytes
from tests.tiny import FAMILIES, tiny_backbone


def gathered(family: str, samples: Samples) -> dict[str, torch.Tensor]:
    return dict(snip.gather(tiny_backbone(family), samples, SNIP))


def assert_same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[where], values) for where, values in expected.items())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("split", [(1, 2), (2, 1), (1, 1, 1)])
def test_layers_in_several_passes_have_the_scores_of_one(family, split, monkeypatch, tmp_path):
    samples = Samples(samples_of(), batch_size=3, scratch=tmp_path)
    whole = gathered(family, samples)
    ends = [sum(split[:i]) for i in range(len(split) + 1)]
    ranges = tuple(range(*pair) for pair in pairwise(ends))
    monkeypatch.setattr(passes, "plan_passes", lambda *_: Plan(3, ranges))
    assert_same(gathered(family, samples), whole)
    assert list(tmp_path.iterdir()) == [], "the files of the sums must be removed"


def test_a_pass_keeps_nothing_of_the_layers_below_it(monkeypatch):
    """Autograd starts at the lowest layer of a pass, so a pass over upper layers needs less memory."""
    backbone, made = tiny_backbone("llama"), []
    monkeypatch.setattr(passes, "plan_passes", lambda *_: Plan(4, (range(2), range(2, 3))))
    start = passes.halving

    def counted(size, attempt):
        made.append(peak_bytes(lambda: start(size, attempt)))
        return start(size, attempt)

    monkeypatch.setattr(passes, "halving", counted)
    snip.gather(backbone, Samples(samples_of(), batch_size=4), SNIP)
    lower, upper = made
    assert upper < 0.8 * lower


@pytest.mark.parametrize("broken", ["forward", "sums"])
def test_a_try_that_ran_out_leaves_nothing_in_the_sums(broken, monkeypatch):
    """If memory runs out after some layers of a batch have been added, the next attempt starts with empty sums."""
    expected = gathered("qwen3", Samples(samples_of(), batch_size=2))
    add, calls = snip.AbsoluteGradients.add, []

    def failing(self, linear, x, delta):
        calls.append(len(x))
        if len(x) > 2 and (broken == "forward" or calls.count(len(x)) == 4):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        add(self, linear, x, delta)

    monkeypatch.setattr(snip.AbsoluteGradients, "add", failing)
    assert_same(gathered("qwen3", Samples(samples_of(), batch_size=4)), expected)
    assert 4 in calls and 2 in calls


def test_layers_give_way_when_one_sample_is_too_much(monkeypatch, tmp_path, capsys):
    expected = gathered("llama", Samples(samples_of(), batch_size=1))
    start = snip.AbsoluteGradients.__init__

    def failing(self, linears, dtype):
        if len({linear.layer for linear in linears}) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        start(self, linears, dtype)

    monkeypatch.setattr(snip.AbsoluteGradients, "__init__", failing)
    assert_same(gathered("llama", Samples(samples_of(), batch_size=2, scratch=tmp_path)), expected)
    assert "continuing with 1" in capsys.readouterr().out


def test_what_no_plan_can_hold_is_refused_before_the_pass(monkeypatch):
    monkeypatch.setattr(passes, "free_bytes", lambda *_: 10)
    ran = []
    monkeypatch.setattr(snip.AbsoluteGradients, "add", lambda *_: ran.append(1))
    with pytest.raises(
        StudyError, match=r"memory of cpu: found 0 MB free; expected .* MB for one decoder block"
    ):
        gathered("llama", Samples(samples_of()))
    assert ran == []
